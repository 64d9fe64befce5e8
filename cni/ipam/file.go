package ipam

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	fileName = "addresses"
	lockName = "lock"
	// maxFile is many times what a node with all its addresses in use writes between rewrites.
	maxFile = 64 << 20
)

// file is a journal on disk, held by this process alone.
type file struct {
	path string
	f    *os.File
	lock *os.File
}

func openFile(dir string) (*file, []byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("lock %s (is another agent running?): %w", lock.Name(), err), lock.Close())
	}
	f := &file{path: filepath.Join(dir, fileName), lock: lock}
	data, err := readBounded(f.path)
	if err != nil {
		return nil, nil, errors.Join(err, f.close())
	}
	return f, data, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: longer than %d bytes", path, maxFile)
	}
	return data, nil
}

func (f *file) append(line []byte) error {
	if _, err := f.f.Write(line); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.f.Fd()))
}

// rewrite replaces the journal in one step.
func (f *file) rewrite(data []byte) error {
	tmp := f.path + ".tmp"
	next, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := f.replace(next, data); err != nil {
		return errors.Join(err, next.Close(), os.Remove(tmp))
	}
	if f.f != nil {
		_ = f.f.Close()
	}
	f.f = next
	return nil
}

func (f *file) replace(next *os.File, data []byte) error {
	if _, err := next.Write(data); err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		return err
	}
	if err := os.Rename(next.Name(), f.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *file) close() error {
	err := f.lock.Close()
	if f.f != nil {
		err = errors.Join(err, f.f.Close())
	}
	return err
}
