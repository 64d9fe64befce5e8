package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

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
