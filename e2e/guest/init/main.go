// Command init is process 1 of a test guest: it mounts what a program expects of Linux, loads the kernel
// modules, holds the packet hooks, runs the program as root, writes its exit code to the second serial port
// and powers off.
//
// It never returns: the kernel panics when process 1 ends, and the host sees that as a guest without result.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/guest/job"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
		code = 125
	}
	if err := report(code); err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintf(os.Stderr, "guest: power off: %v\n", err)
	}
}

func run() (int, error) {
	started := time.Now()
	for _, step := range []func() error{mountAll, rawConsole, loadModules, loopbackUp, holdHooks} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	var spec job.Spec
	data, err := os.ReadFile(job.SpecFile)
	if err != nil {
		return 0, fmt.Errorf("read spec: %w", err)
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return 0, fmt.Errorf("read spec: %w", err)
	}
	fmt.Printf("guest: %s, ready in %.1fs\n", release(), time.Since(started).Seconds())
	return runProgram(spec)
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "Linux"
	}
	return "Linux " + unix.ByteSliceToString(name.Release[:])
}

func runProgram(spec job.Spec) (int, error) {
	process, err := os.StartProcess(spec.Program, append([]string{spec.Program}, spec.Args...), &os.ProcAttr{
		Dir:   job.Dir,
		Env:   append([]string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp", "TERM=dumb"}, spec.Env...),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, fmt.Errorf("start program: %w", err)
	}
	return wait(process.Pid)
}

// wait also reaps what the program's children left behind: orphans come to process 1.
func wait(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for program: %w", err)
		case got == pid && status.Exited():
			return status.ExitStatus(), nil
		case got == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		}
	}
}

func report(code int) error {
	device, err := os.OpenFile(job.ResultDevice, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("report exit code: %w", err)
	}
	defer device.Close()
	if _, err := fmt.Fprintf(device, "%d\n", code); err != nil {
		return fmt.Errorf("report exit code: %w", err)
	}
	// Power-off does not wait for the line: what the port has not sent by then is lost.
	return unix.IoctlSetInt(int(device.Fd()), unix.TCSBRK, 1)
}
