// Package guest runs a static program as root on a real Debian kernel, in a QEMU machine of its own.
//
// It exists for what the machine at hand may lack: WireGuard in the kernel, SCTP, modules. Input: a program, its
// arguments and environment, and files to lay beside it. Output: what it prints, as it prints it, and its exit
// code. The guest is emulated (no virtualisation needed), so timings inside mean nothing and cryptography is 25
// to 50 times slower: tests there assert behaviour and allow ten times their usual time.
//
// Invariants: nothing is installed from the kernel's package, it is unpacked into the cache; the guest has no
// network and no disk; a guest that outlives its time, or its caller's context, is ended. Out of scope: amd64
// hosts only, programs that need shared libraries.
package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kithnet/kith/e2e/guest/cpio"
	"github.com/kithnet/kith/e2e/guest/job"
)

// ErrNoResult says that the guest ended without an exit code: its kernel panicked, or it ran out of time.
var ErrNoResult = errors.New("guest ended without a result")

// Job is one run of a program.
type Job struct {
	// Program is the path of a static binary on the host.
	Program string
	Args    []string
	// Env is added to a small environment of the guest's own ("KEY=value").
	Env []string
	// Files are files or whole folders on the host, by their path in the guest; a relative path lies in the
	// program's working folder.
	Files map[string]string
	// Timeout ends the guest; zero means ten minutes.
	Timeout time.Duration
	// MemoryMiB is the size of the guest; zero means 1024.
	MemoryMiB int
	// Verbose shows the kernel's messages too.
	Verbose bool
}

// Run boots the kernel, runs the program and returns its exit code. Everything the guest prints goes to out.
func Run(ctx context.Context, kernel Kernel, j Job, out io.Writer) (int, error) {
	work, err := os.MkdirTemp("", "kith-guest-")
	if err != nil {
		return 0, fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(work)
	if err := makeInitramfs(ctx, kernel, j, work); err != nil {
		return 0, fmt.Errorf("guest: %w", err)
	}
	if j.Timeout == 0 {
		j.Timeout = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	err = boot(ctx, kernel, j, machine{dir: work, out: out})
	code, resultErr := result(work)
	switch {
	case resultErr == nil:
		return code, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%w: %w after %v", ErrNoResult, context.Cause(ctx), j.Timeout)
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrNoResult, err)
	}
	return 0, fmt.Errorf("%w: %w", ErrNoResult, resultErr)
}

// machine is where one run keeps its files and sends its output.
type machine struct {
	dir string
	out io.Writer
}

func (m machine) initramfs() string { return filepath.Join(m.dir, "initramfs") }

func boot(ctx context.Context, kernel Kernel, j Job, m machine) error {
	memory := j.MemoryMiB
	if memory == 0 {
		memory = 1024
	}
	level := "quiet loglevel=3"
	if j.Verbose {
		level = "loglevel=7"
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "qemu64", "-M", "q35", "-smp", "2", "-m", strconv.Itoa(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", kernel.image(), "-initrd", m.initramfs(),
		"-append", "rdinit=/init console=ttyS0 panic=-1 oops=panic mitigations=off audit=0 nokaslr tsc=nowatchdog clocksource=tsc "+
			"no_timer_check rcupdate.rcu_expedited=1 random.trust_cpu=on cryptomgr.notests "+level,
		"-chardev", "stdio,id=console,signal=off", "-device", "isa-serial,chardev=console",
		"-chardev", "file,id=result,path="+filepath.Join(m.dir, "result"), "-device", "isa-serial,chardev=result",
	)
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = m.out, &complaints
	// A test run that panics ends without a word to its children: the machine goes with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("qemu: %w\n%s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	return nil
}

func result(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "result"))
	if err != nil {
		return 0, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("no exit code from the guest: kernel panic? (%q)", data)
	}
	return code, nil
}

// makeInitramfs writes the cached modules and this run's own archive one after the other.
func makeInitramfs(ctx context.Context, kernel Kernel, j Job, work string) error {
	modules, err := os.ReadFile(kernel.modules())
	if err != nil {
		return err
	}
	file, err := os.Create(machine{dir: work}.initramfs())
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(modules); err != nil {
		return err
	}
	if err := writeJob(ctx, file, kernel, j); err != nil {
		return err
	}
	return file.Close()
}

func writeJob(ctx context.Context, to *os.File, kernel Kernel, j Job) error {
	initPath, err := kernel.buildInit(ctx, filepath.Dir(to.Name()))
	if err != nil {
		return err
	}
	program := filepath.Join(job.Dir, filepath.Base(j.Program))
	spec, err := json.Marshal(job.Spec{Program: program, Args: j.Args, Env: j.Env})
	if err != nil {
		return err
	}
	w := cpio.NewWriter(to)
	w.Dir("dev")
	w.File(job.SpecFile, 0o644, spec)
	if err := addTree(w, "/init", initPath); err != nil {
		return err
	}
	if err := addTree(w, program, j.Program); err != nil {
		return err
	}
	for at, source := range j.Files {
		if !filepath.IsAbs(at) {
			at = filepath.Join(job.Dir, at)
		}
		if err := addTree(w, at, source); err != nil {
			return err
		}
	}
	return w.Close()
}

// addTree adds a file, or a folder with what is below it; symbolic links are followed.
func addTree(w *cpio.Writer, at, source string) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		to := filepath.Join(at, below)
		if entry.IsDir() {
			w.Dir(to)
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w.File(to, uint32(info.Mode().Perm()), data)
		return nil
	})
}
