// Command runc-clamp runs runc where CAP_SYS_RESOURCE is missing.
//
// It edits the OCI process description (create and run: config.json of the bundle; exec: the file
// named by --process) so that it asks for nothing this process cannot give: that capability, limits
// above its own hard limits, an oom_score_adj below its own. Then it becomes the runc beside it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Fprintln(os.Stderr, "runc-clamp:", run(os.Args[1:]))
	os.Exit(1)
}

// run becomes runc. It returns only if it cannot.
func run(args []string) error {
	own, err := readLimits()
	if err != nil {
		return err
	}
	if file, member := processFile(args); file != "" && !own.sysResource {
		if err := rewrite(file, member, own); err != nil {
			return fmt.Errorf("clamp %s: %w", file, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runc := filepath.Join(filepath.Dir(self), "runc")
	return fmt.Errorf("exec %s: %w", runc, unix.Exec(runc, append([]string{runc}, args...), os.Environ()))
}

// processFile finds the file that holds the process description, if the command has one, and the
// member of its JSON object that is it; "" for the whole object.
func processFile(args []string) (file, member string) {
	bundle, process, command := ".", "", ""
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		switch {
		case name == "--bundle" || name == "-b":
			bundle = value
		case name == "--process" || name == "-p":
			process = value
		case command == "" && !strings.HasPrefix(name, "-"):
			command = name
			continue
		}
		if takesValue(name) && !inline {
			i++
		}
	}
	switch command {
	case "create", "run", "restore":
		return filepath.Join(bundle, "config.json"), "process"
	case "exec":
		return process, ""
	}
	return "", ""
}

func takesValue(flag string) bool {
	switch flag {
	case "--root", "--log", "--log-format", "--criu", "--rootless", "--bundle", "-b", "--process", "-p", "--pid-file", "--console-socket":
		return true
	}
	return false
}

func rewrite(file, member string, own limits) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.UseNumber()
	var spec map[string]any
	if err := decoder.Decode(&spec); err != nil {
		return err
	}
	process := spec
	if member != "" {
		process, _ = spec[member].(map[string]any)
	}
	own.clamp(process)
	if content, err = json.Marshal(spec); err != nil {
		return err
	}
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, st.Mode())
}
