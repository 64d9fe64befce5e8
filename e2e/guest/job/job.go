// Package job is what a host and the init process of its guest agree on: what to run and where things lie.
// It is pure data. The host writes a Spec as JSON into the guest's initramfs; init reads it.
package job

// Paths inside the guest and devices that both sides name.
const (
	// Dir is the working folder of the program.
	Dir = "/job"
	// SpecFile holds the Spec.
	SpecFile = "/spec.json"
	// Modules is the folder of kernel modules; ModuleOrder lists their file names, one a line, in load order.
	Modules     = "/modules"
	ModuleOrder = "/modules/order"
	// ResultDevice is where init writes the exit code as one decimal line: the second serial port.
	ResultDevice = "/dev/ttyS1"
)

// Spec says what to run in the guest.
type Spec struct {
	// Program is its path in the guest.
	Program string   `json:"program"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
}
