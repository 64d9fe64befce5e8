package config

import (
	"fmt"
	"strconv"
)

// MemoryVariable is the environment variable that has the container's memory limit, in bytes.
const MemoryVariable = "KITH_MEMORY_LIMIT"

// HeapLimit is how much of a container's memory limit the Go runtime may use before it collects garbage all the time. The rest
// is for what it does not count: what the kernel keeps for the process, its sockets and rules. 0: there is no limit.
func HeapLimit(container string) (int64, error) {
	if container == "" {
		return 0, nil
	}
	limit, err := strconv.ParseInt(container, 10, 64)
	if err != nil || limit < 0 {
		return 0, fmt.Errorf("%s is %q: want a number of bytes, as limits.memory of the container is by a resourceFieldRef", MemoryVariable, container)
	}
	return limit / 4 * 3, nil
}
