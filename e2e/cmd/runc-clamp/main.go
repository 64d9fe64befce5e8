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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc-clamp:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	own, err := readLimits()
	if err != nil {
		return err
	}
	if file, inBundle := processFile(args); file != "" && !own.sysResource {
		if err := rewrite(file, inBundle, own); err != nil {
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

// processFile finds the file that holds the process description, if the command has one.
func processFile(args []string) (file string, inBundle bool) {
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
		return filepath.Join(bundle, "config.json"), true
	case "exec":
		return process, false
	}
	return "", false
}

func takesValue(flag string) bool {
	switch flag {
	case "--root", "--log", "--log-format", "--criu", "--rootless", "--bundle", "-b", "--process", "-p", "--pid-file", "--console-socket":
		return true
	}
	return false
}

func rewrite(file string, inBundle bool, own limits) error {
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
	if inBundle {
		process, _ = spec["process"].(map[string]any)
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

// limits is what this process can give.
type limits struct {
	sysResource bool
	oomScoreAdj int64
}

func readLimits() (limits, error) {
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return limits{}, fmt.Errorf("read capabilities: %w", err)
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return limits{}, err
	}
	adj, err := strconv.ParseInt(strings.TrimSpace(string(score)), 10, 32)
	if err != nil {
		return limits{}, fmt.Errorf("oom_score_adj: %w", err)
	}
	return limits{sysResource: data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0, oomScoreAdj: adj}, nil
}

func (l limits) clamp(process map[string]any) {
	capabilities, _ := process["capabilities"].(map[string]any)
	for set, names := range capabilities {
		list, _ := names.([]any)
		kept := []any{}
		for _, name := range list {
			if name != "CAP_SYS_RESOURCE" {
				kept = append(kept, name)
			}
		}
		capabilities[set] = kept
	}
	rlimits, _ := process["rlimits"].([]any)
	for _, r := range rlimits {
		if m, ok := r.(map[string]any); ok {
			clampRlimit(m)
		}
	}
	if v, ok := process["oomScoreAdj"].(json.Number); ok {
		if n, err := v.Int64(); err == nil && n < l.oomScoreAdj {
			process["oomScoreAdj"] = l.oomScoreAdj
		}
	}
}

func clampRlimit(r map[string]any) {
	resource, ok := map[any]int{
		"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
		"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
		"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
		"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	}[r["type"]]
	var own unix.Rlimit
	if !ok || unix.Getrlimit(resource, &own) != nil {
		return
	}
	for _, bound := range []string{"hard", "soft"} {
		n, _ := r[bound].(json.Number)
		if v, err := strconv.ParseUint(n.String(), 10, 64); err != nil || v > own.Max {
			r[bound] = own.Max
		}
	}
}
