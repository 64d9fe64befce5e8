package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// File is one file of the state folder, by its path. It is closed to others, and
// written whole or not at all, also over a crash.
type File string

// File names a file of the folder.
func (f Folder) File(name string) File { return File(filepath.Join(string(f), name)) }

const unfinished = ".tmp-"

// Sweep removes what a crash has left of files that were never finished: there are
// keys in them. Nothing may be written meanwhile.
func (f Folder) Sweep() error {
	entries, err := os.ReadDir(string(f))
	for _, e := range entries {
		if e.Type().IsRegular() && strings.Contains(e.Name(), unfinished) {
			err = errors.Join(err, os.Remove(filepath.Join(string(f), e.Name())))
		}
	}
	return err
}

func (f File) String() string { return string(f) }

// Read returns what is in the file. One that was open to others is closed to them.
func (f File) Read() ([]byte, error) {
	data, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(string(f), 0o600); err != nil {
		return nil, fmt.Errorf("close to others: %w", err)
	}
	return data, nil
}

// Written is when the file was last written.
func (f File) Written() (time.Time, error) {
	info, err := os.Stat(string(f))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Write replaces the file.
func (f File) Write(data []byte) error {
	dir := filepath.Dir(string(f))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := f.swap(dir, data); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// swap writes a new file, and puts it in the old one's place. The error of a cause is always the same: it names this file,
// and not the one that was made for the moment.
func (f File) swap(dir string, data []byte) error {
	tmp, err := os.CreateTemp(dir, filepath.Base(string(f))+unfinished)
	if err != nil {
		return f.named(err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return f.named(err)
	}
	return f.named(os.Rename(tmp.Name(), string(f)))
}

func (f File) named(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return &fs.PathError{Op: path.Op, Path: string(f), Err: path.Err}
	case errors.As(err, &link):
		return &fs.PathError{Op: link.Op, Path: string(f), Err: link.Err}
	}
	return err
}
