package cni

import (
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"

func validCall(command Command) Call {
	return Call{
		Command: command, ContainerID: "abc", Netns: "/run/netns/x", IfName: "eth0", Args: podArgs,
		Config: []byte(`{"cniVersion":"1.1.0","name":"kith","type":"kith-cni","prevResult":{"cniVersion":"1.1.0"},
			"cni.dev/valid-attachments":[{"containerID":"abc","ifname":"eth0"}]}`),
	}
}

func TestParse(t *testing.T) {
	got, err := validCall(CommandAdd).Parse()
	if err != nil {
		t.Fatal(err)
	}
	got.Config.PrevResult = nil
	want := Request{
		Command: CommandAdd, Key: Key{"abc", "eth0"}, Netns: "/run/netns/x",
		Pod: Pod{Namespace: "ns", Name: "web-1", UID: "u-1"}, InfraContainerID: "abc",
		Config: NetConf{
			CNIVersion: "1.1.0", Name: "kith", Type: "kith-cni", Socket: DefaultSocket,
			ValidAttachments: []Key{{"abc", "eth0"}}, Listed: true,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	const env, conf, decoding = types.ErrInvalidEnvironmentVariables, types.ErrInvalidNetworkConfig, types.ErrDecodingFailure
	config := func(s string) func(*Call) { return func(c *Call) { c.Config = []byte(s) } }
	tests := map[string]struct {
		command Command
		change  func(*Call)
		code    uint
		says    string
	}{
		"command":           {"VERSION", func(*Call) {}, env, "CNI_COMMAND"},
		"no container":      {CommandAdd, func(c *Call) { c.ContainerID = "" }, env, "CNI_CONTAINERID"},
		"container":         {CommandDel, func(c *Call) { c.ContainerID = "../x" }, env, "CNI_CONTAINERID"},
		"interface":         {CommandDel, func(c *Call) { c.IfName = "a/b" }, env, "CNI_IFNAME"},
		"long interface":    {CommandAdd, func(c *Call) { c.IfName = "a234567890123456" }, env, "CNI_IFNAME"},
		"no sandbox":        {CommandAdd, func(c *Call) { c.Netns = "" }, env, "CNI_NETNS"},
		"no sandbox, CHECK": {CommandCheck, func(c *Call) { c.Netns = "" }, env, "CNI_NETNS"},
		"no pod":            {CommandAdd, func(c *Call) { c.Args = "" }, env, "K8S_POD_NAMESPACE"},
		"arguments":         {CommandAdd, func(c *Call) { c.Args = "K8S" }, env, "CNI_ARGS"},
		"no JSON":           {CommandAdd, config(`{`), decoding, "network configuration"},
		"no version":        {CommandAdd, config(`{"name":"kith"}`), conf, "cniVersion"},
		"no name":           {CommandAdd, config(`{"cniVersion":"1.1.0"}`), conf, "name"},
		"socket":            {CommandAdd, config(`{"cniVersion":"1.1.0","name":"k","socket":"x"}`), conf, "socket"},
		"prevResult":        {CommandAdd, config(`{"cniVersion":"1.1.0","name":"k","prevResult":[]}`), decoding, "prevResult"},
		"no prevResult":     {CommandCheck, config(`{"cniVersion":"1.1.0","name":"k"}`), conf, "prevResult"},
		"GC without a list": {CommandGC, config(`{"cniVersion":"1.1.0","name":"k"}`), conf, "cni.dev/valid-attachments"},
		"GC with half a key": {CommandGC, config(`{"cniVersion":"1.1.0","name":"k","cni.dev/valid-attachments":[{"containerID":"a"}]}`),
			conf, "cni.dev/valid-attachments[0]"},
		"GC with a wrong list": {CommandGC, config(`{"cniVersion":"1.1.0","name":"k","cni.dev/valid-attachments":3}`),
			decoding, "cni.dev/valid-attachments"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := validCall(tt.command)
			tt.change(&c)
			_, err := c.Parse()
			expectError(t, err, tt.code, tt.says)
		})
	}
}

func TestParseAccepts(t *testing.T) {
	tests := map[string]Call{
		"DEL without sandbox, pod and result": {Command: CommandDel, ContainerID: "abc", IfName: "eth0",
			Config: []byte(`{"cniVersion":"0.3.1","name":"k"}`)},
		"STATUS without anything": {Command: CommandStatus, Config: []byte(`{"cniVersion":"1.1.0","name":"k"}`)},
		"GC of everything":        {Command: CommandGC, Config: []byte(`{"cniVersion":"1.1.0","name":"k","cni.dev/valid-attachments":null}`)},
		"GC by the old key":       {Command: CommandGC, Config: []byte(`{"cniVersion":"1.1.0","name":"k","cni.dev/attachments":[]}`)},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := c.Parse(); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte(validCall(CommandAdd).Config))
	f.Add([]byte(`{"cniVersion":"0.4.0","name":"k","prevResult":{"ips":[{"version":"4","address":"10.0.0.1/32"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := ParseConf(data)
		if err == nil && (conf.Name == "" || conf.CNIVersion == "" || conf.Socket == "") {
			t.Errorf("%+v", conf)
		}
	})
}
