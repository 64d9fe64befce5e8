package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/utils"
)

// DefaultSocket is where the agent listens when the network configuration does not say otherwise.
const DefaultSocket = "/run/kith/agent.sock"

// PendingDir is the folder, beside the socket, of the DELs that wait for an agent that is away.
const PendingDir = "pending-del"

// Command is a CNI operation that the agent serves.
type Command string

// The operations of the specification (VERSION needs no agent).
const (
	CommandAdd    Command = "ADD"
	CommandDel    Command = "DEL"
	CommandCheck  Command = "CHECK"
	CommandGC     Command = "GC"
	CommandStatus Command = "STATUS"
)

// Call is a plugin call as the runtime made it: environment and standard input, not yet read. It is
// what the plugin sends to the agent.
type Call struct {
	Command     Command         `json:"command"`
	ContainerID string          `json:"containerID,omitempty"`
	Netns       string          `json:"netns,omitempty"`
	IfName      string          `json:"ifName,omitempty"`
	Args        string          `json:"args,omitempty"`
	Config      json.RawMessage `json:"config"`
}

// Request is a Call that has been read and found valid.
type Request struct {
	Command Command
	Key
	Netns string
	Pod   Pod
	// InfraContainerID is what the kubelet calls the sandbox; usually the container ID again.
	InfraContainerID string
	Config           NetConf
}

// NetConf is the network configuration that the runtime hands to the plugin.
type NetConf struct {
	CNIVersion string
	Name       string
	Type       string
	// Socket is where the agent listens.
	Socket string
	// PrevResult is the result of the plugin before this one (ADD) or of the whole ADD (CHECK, DEL).
	PrevResult *types100.Result
	// ValidAttachments is the list that GC must keep. Listed tells an empty list from an absent one.
	ValidAttachments []Key
	Listed           bool
	// Delegates are the plugins that the pod wants besides, in the order of ADD.
	Delegates []Delegate
}

type rawConf struct {
	CNIVersion string          `json:"cniVersion"`
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
	Runtime    runtimeConf     `json:"runtimeConfig"`
	Valid      json.RawMessage `json:"cni.dev/valid-attachments"`
	// Valid under the name that the specification had by mistake before.
	ValidOld json.RawMessage `json:"cni.dev/attachments"`
}

// ParseConf reads a network configuration. Errors are of type *types.Error and name the field.
func ParseConf(data []byte) (NetConf, error) {
	var raw rawConf
	if err := json.Unmarshal(data, &raw); err != nil {
		return NetConf{}, types.NewError(types.ErrDecodingFailure, "decode network configuration", err.Error())
	}
	conf := NetConf{CNIVersion: raw.CNIVersion, Name: raw.Name, Type: raw.Type, Socket: raw.Socket}
	if conf.CNIVersion == "" {
		return NetConf{}, invalidConf("cniVersion", "is missing")
	}
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return NetConf{}, invalidConf("name", err.Error())
	}
	if conf.Socket == "" {
		conf.Socket = DefaultSocket
	}
	if !path.IsAbs(conf.Socket) {
		return NetConf{}, invalidConf("socket", fmt.Sprintf("%q is not an absolute path", conf.Socket))
	}
	if err := conf.readPrevResult(raw.PrevResult); err != nil {
		return NetConf{}, err
	}
	conf.Delegates = raw.Runtime.delegates()
	valid := raw.Valid
	if valid == nil {
		valid = raw.ValidOld
	}
	if err := conf.readValidAttachments(valid); err != nil {
		return NetConf{}, err
	}
	return conf, nil
}

func (c *NetConf) readPrevResult(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	prev, err := create.Create(c.CNIVersion, raw)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "decode prevResult", err.Error())
	}
	c.PrevResult, err = types100.NewResultFromResult(prev)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "convert prevResult", err.Error())
	}
	return nil
}

func (c *NetConf) readValidAttachments(raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	c.Listed = true
	if err := json.Unmarshal(raw, &c.ValidAttachments); err != nil {
		return types.NewError(types.ErrDecodingFailure, "decode cni.dev/valid-attachments", err.Error())
	}
	for i, k := range c.ValidAttachments {
		if k.ContainerID == "" || k.IfName == "" {
			return invalidConf(fmt.Sprintf("cni.dev/valid-attachments[%d]", i), "containerID or ifname is missing")
		}
	}
	return nil
}

// Parse reads the call. Errors are of type *types.Error and name the field or variable.
func (c Call) Parse() (Request, error) {
	conf, err := ParseConf(c.Config)
	if err != nil {
		return Request{}, err
	}
	r := Request{Command: c.Command, Config: conf}
	switch c.Command {
	case CommandAdd, CommandCheck, CommandDel:
		return c.parseAttachment(r)
	case CommandGC:
		if !conf.Listed {
			return Request{}, invalidConf("cni.dev/valid-attachments", "is missing: GC without it would free every attachment")
		}
		return r, nil
	case CommandStatus:
		return r, nil
	default:
		return Request{}, invalidEnv("CNI_COMMAND", fmt.Sprintf("%q is not an operation of the agent", c.Command))
	}
}

func (c Call) parseAttachment(r Request) (Request, error) {
	r.Key = Key{ContainerID: c.ContainerID, IfName: c.IfName}
	if err := r.Validate(); err != nil {
		return Request{}, err
	}
	args, err := parseArgs(c.Args)
	if err != nil {
		return Request{}, err
	}
	r.Pod = Pod{Namespace: args["K8S_POD_NAMESPACE"], Name: args["K8S_POD_NAME"], UID: args["K8S_POD_UID"]}
	r.InfraContainerID = args["K8S_POD_INFRA_CONTAINER_ID"]
	r.Netns = c.Netns
	if c.Command == CommandDel {
		return r, nil
	}
	if !path.IsAbs(r.Netns) {
		return Request{}, invalidEnv("CNI_NETNS", fmt.Sprintf("%q is not an absolute path", r.Netns))
	}
	if c.Command == CommandAdd && (r.Pod.Namespace == "" || r.Pod.Name == "") {
		return Request{}, invalidEnv("CNI_ARGS", "K8S_POD_NAMESPACE or K8S_POD_NAME is missing")
	}
	if c.Command == CommandCheck && r.Config.PrevResult == nil {
		return Request{}, invalidConf("prevResult", "is missing: CHECK needs it")
	}
	return r, nil
}

// Validate says whether the key is one that the specification allows.
func (k Key) Validate() error {
	if k.ContainerID == "" {
		return invalidEnv("CNI_CONTAINERID", "is missing")
	}
	if err := utils.ValidateContainerID(k.ContainerID); err != nil {
		return invalidEnv("CNI_CONTAINERID", err.Error())
	}
	if len(k.ContainerID) > maxContainerID {
		return invalidEnv("CNI_CONTAINERID", fmt.Sprintf("is longer than %d characters", maxContainerID))
	}
	if err := utils.ValidateInterfaceName(k.IfName); err != nil {
		return invalidEnv("CNI_IFNAME", err.Error())
	}
	return nil
}

// maxContainerID is far above what runtimes use (64) and keeps records small.
const maxContainerID = 512

func parseArgs(s string) (map[string]string, error) {
	args := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, invalidEnv("CNI_ARGS", fmt.Sprintf("%q is not KEY=VALUE", pair))
		}
		args[key] = value
	}
	return args, nil
}

func invalidEnv(name, why string) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, name+": invalid", name+" "+why)
}

func invalidConf(field, why string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, field+": invalid", field+" "+why)
}

// ToError returns err as an error of the specification: itself if it is one, else one whose code
// follows from what is wrapped in it.
func ToError(err error) *types.Error {
	var spec *types.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &spec):
		if err == error(spec) {
			return spec
		}
		return types.NewError(spec.Code, err.Error(), "")
	case isTransient(err):
		return types.NewError(types.ErrTryAgainLater, "try again later", err.Error())
	default:
		return types.NewError(types.ErrInternal, "internal error", err.Error())
	}
}
