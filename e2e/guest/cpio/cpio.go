// Package cpio writes the "newc" archive format, the one the Linux kernel unpacks as its initramfs.
//
// Input: directories, files and symbolic links, named from the root without a leading slash. Output: bytes
// in an io.Writer. Invariants: parents come before what they hold and come once, since the kernel makes none
// by itself; the same calls give the same bytes (no times, no owners, numbered inodes). Archives may be
// concatenated: the kernel reads one after the other and the later file wins. Out of scope: reading archives,
// hard links, device nodes.
package cpio

import (
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// Writer writes one archive. Errors stick: the first one is what Close returns.
type Writer struct {
	to    io.Writer
	at    int64
	inode int
	seen  map[string]bool
	err   error
}

// NewWriter starts an archive in w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{to: w, seen: map[string]bool{"": true, ".": true}}
}

// Dir adds a directory and the parents it needs. A directory that is there already is left as it is.
func (w *Writer) Dir(name string) {
	name = clean(name)
	if w.seen[name] {
		return
	}
	w.Dir(path.Dir(name))
	w.seen[name] = true
	w.entry(name, typeDir|0o755, nil)
}

// File adds a regular file.
func (w *Writer) File(name string, perm uint32, data []byte) {
	name = clean(name)
	w.Dir(path.Dir(name))
	w.entry(name, typeFile|perm&0o7777, data)
}

// Link adds a symbolic link to target.
func (w *Writer) Link(name, target string) {
	name = clean(name)
	w.Dir(path.Dir(name))
	w.entry(name, typeLink|0o777, []byte(target))
}

// Close ends the archive; the underlying writer stays open.
func (w *Writer) Close() error {
	w.inode = -1
	w.entry("TRAILER!!!", 0, nil)
	return w.err
}

func (w *Writer) entry(name string, mode uint32, data []byte) {
	w.inode++
	fields := [13]int{w.inode, int(mode), 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
	var header strings.Builder
	header.WriteString("070701")
	for _, field := range fields {
		fmt.Fprintf(&header, "%08X", field)
	}
	header.WriteString(name + "\x00")
	w.padded([]byte(header.String()))
	w.padded(data)
}

// padded writes data and fills up to the next multiple of four, as newc wants after names and after contents.
func (w *Writer) padded(data []byte) {
	fill := (4 - (w.at+int64(len(data)))%4) % 4
	w.write(data)
	w.write(make([]byte, fill))
}

func (w *Writer) write(data []byte) {
	if w.err != nil {
		return
	}
	n, err := w.to.Write(data)
	w.at += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write archive: %w", err)
	}
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
