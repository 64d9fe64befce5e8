package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/conflist"
)

// Where fake delegates write what they are asked, and which of their calls fail, as "kith-portmap ADD,kith-portmap DEL".
const (
	callsEnv = "KITH_TEST_CALLS"
	failEnv  = "KITH_TEST_FAIL"
	// A fake delegate's ADD connects to this socket, and waits for ever.
	hangEnv = "KITH_TEST_HANG"
)

// fakeDelegate is kith-portmap or kith-bandwidth without a kernel. Its ADD adds an interface of its name to the result.
func fakeDelegate(name string) {
	do := func(args *skel.CmdArgs) error {
		var conf types.NetConf
		if err := errors.Join(json.Unmarshal(args.StdinData, &conf), version.ParsePrevResult(&conf)); err != nil {
			return err
		}
		call := name + " " + os.Getenv("CNI_COMMAND")
		if err := note(call, args.StdinData, conf.PrevResult); err != nil {
			return err
		}
		if strings.Contains(os.Getenv(failEnv), call) {
			return errors.New(name + " is broken")
		}
		if os.Getenv("CNI_COMMAND") != "ADD" {
			return nil
		}
		if socket := os.Getenv(hangEnv); socket != "" {
			return hang(socket)
		}
		result, err := types100.NewResultFromResult(conf.PrevResult)
		if err != nil {
			return err
		}
		result.Interfaces = append(result.Interfaces, &types100.Interface{Name: name})
		return types.PrintResult(result, conf.CNIVersion)
	}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: do, Del: do, Check: do}, version.All, name)
}

func hang(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// note writes down a call: how many interfaces the result before it has, and whether the pod wants something.
func note(call string, stdin []byte, prev types.Result) error {
	interfaces := -1
	if prev != nil {
		result, err := types100.NewResultFromResult(prev)
		if err != nil {
			return err
		}
		interfaces = len(result.Interfaces)
	}
	var conf struct{ RuntimeConfig map[string]json.RawMessage }
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return err
	}
	file, err := os.OpenFile(os.Getenv(callsEnv), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s after %d with %d\n", call, interfaces, len(conf.RuntimeConfig))
	return errors.Join(err, file.Close())
}

// fakeAgent serves calls as an agent does, and writes them down.
func fakeAgent(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call cni.Call
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		req, err := call.Parse()
		if err != nil {
			t.Error(err)
		}
		file, err := os.OpenFile(os.Getenv(callsEnv), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintln(file, "agent", call.Command)
		_ = file.Close()
		if call.Command == cni.CommandAdd {
			_ = json.NewEncoder(w).Encode(cni.Result(cni.NewAttachment(req, 1420), req.Config.PrevResult))
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// delegating is a runtime with the agent's own list, whose delegates are fakes, and calls, which returns what was asked since.
func delegating(t *testing.T) (runtime *libcni.CNIConfig, list *libcni.NetworkConfigList, calls func() string) {
	t.Helper()
	file, bin, socket := filepath.Join(t.TempDir(), "calls"), plugins(t), filepath.Join(t.TempDir(), "agent.sock")
	t.Setenv(callsEnv, file)
	// The sandbox is this namespace: nothing is made there.
	t.Setenv("CNI_NETNS_OVERRIDE", "true")
	fakeAgent(t, socket)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cni.Portmap, cni.Bandwidth} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := conflist.Render(socket)
	if err != nil {
		t.Fatal(err)
	}
	list, err = libcni.NetworkConfFromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	list.DisableCheck = false
	return libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil), list, func() string {
		text, _ := os.ReadFile(file)
		_ = os.Remove(file)
		return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "; ")
	}
}

// wanting is a pod that wants a host port and a limit.
func wanting(id string) *libcni.RuntimeConf {
	conf := runtimeConf(id, "/proc/self/ns/net")
	conf.CapabilityArgs = map[string]any{
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": 1000000, "ingressBurst": 1000000},
	}
	return conf
}

// TestDelegatesAreAskedForTheirPods: a pod that wants no host port and no limit waits for no delegate, also where the
// runtime says that it wants none; the others have all of a chain's order.
func TestDelegatesAreAskedForTheirPods(t *testing.T) {
	runtime, list, calls := delegating(t)
	none := runtimeConf("none", "/proc/self/ns/net")
	none.CapabilityArgs = map[string]any{"portMappings": []any{}, "bandwidth": map[string]any{"ingressRate": 0}}
	ports := wanting("ports")
	delete(ports.CapabilityArgs, "bandwidth")
	for _, pod := range []struct {
		conf *libcni.RuntimeConf
		want string
	}{
		{runtimeConf("plain", "/proc/self/ns/net"), "agent ADD; agent CHECK; agent DEL"},
		{none, "agent ADD; agent CHECK; agent DEL"},
		{ports, "agent ADD; kith-portmap ADD after 2 with 1; agent CHECK; kith-portmap CHECK after 3 with 1; " +
			"kith-portmap DEL after 3 with 1; agent DEL"},
		{wanting("both"), "agent ADD; kith-portmap ADD after 2 with 1; kith-bandwidth ADD after 3 with 1; " +
			"agent CHECK; kith-portmap CHECK after 4 with 1; kith-bandwidth CHECK after 4 with 1; " +
			"kith-bandwidth DEL after 4 with 1; kith-portmap DEL after 4 with 1; agent DEL"},
	} {
		if _, err := runtime.AddNetworkList(t.Context(), list, pod.conf); err != nil {
			t.Fatalf("%s: ADD: %v", pod.conf.ContainerID, err)
		}
		if err := runtime.CheckNetworkList(t.Context(), list, pod.conf); err != nil {
			t.Errorf("%s: CHECK: %v", pod.conf.ContainerID, err)
		}
		if err := runtime.DelNetworkList(t.Context(), list, pod.conf); err != nil {
			t.Errorf("%s: DEL: %v", pod.conf.ContainerID, err)
		}
		if got := calls(); got != pod.want {
			t.Errorf("%s: asked\n%s, want\n%s", pod.conf.ContainerID, got, pod.want)
		}
	}
	if err := runtime.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Error(err)
	}
	if err := runtime.GCNetworkList(t.Context(), list, &libcni.GCArgs{}); err != nil {
		t.Error(err)
	}
	if got, want := calls(), "agent STATUS; agent GC"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// TestFailingDelegateKeepsNothing: whatever a delegate fails at, the agent takes the attachment back; DEL ends well where
// ADD never did, and says what was left of one that did.
func TestFailingDelegateKeepsNothing(t *testing.T) {
	runtime, list, calls := delegating(t)
	steps := []struct{ fail, add, del, asked string }{
		{"kith-portmap ADD,kith-portmap DEL", "host ports (kith-portmap); kith-portmap is broken", "",
			"agent ADD; kith-portmap ADD after 2 with 1; kith-portmap DEL after 2 with 1; agent DEL; " +
				"kith-bandwidth DEL after -1 with 1; kith-portmap DEL after -1 with 1; agent DEL"},
		{"kith-bandwidth ADD", "bandwidth limits (kith-bandwidth); kith-bandwidth is broken: the kernel needs ifb", "",
			"agent ADD; kith-portmap ADD after 2 with 1; kith-bandwidth ADD after 3 with 1; kith-bandwidth DEL after 3 with 1; " +
				"kith-portmap DEL after 3 with 1; agent DEL; " +
				"kith-bandwidth DEL after -1 with 1; kith-portmap DEL after -1 with 1; agent DEL"},
		{"kith-portmap DEL", "", "host ports (kith-portmap); kith-portmap is broken",
			"agent ADD; kith-portmap ADD after 2 with 1; kith-bandwidth ADD after 3 with 1; " +
				"kith-bandwidth DEL after 4 with 1; kith-portmap DEL after 4 with 1; agent DEL"},
	}
	for i, step := range steps {
		pod := wanting(fmt.Sprint("pod", i))
		t.Setenv(failEnv, step.fail)
		_, add := runtime.AddNetworkList(t.Context(), list, pod)
		del := runtime.DelNetworkList(t.Context(), list, pod)
		for _, got := range []struct {
			err  error
			want string
		}{{add, step.add}, {del, step.del}} {
			if (got.err == nil) != (got.want == "") || got.err != nil && !strings.Contains(got.err.Error(), got.want) {
				t.Errorf("%s: %v, want %q", step.fail, got.err, got.want)
			}
		}
		if got := calls(); got != step.asked {
			t.Errorf("%s: asked\n%s, want\n%s", step.fail, got, step.asked)
		}
	}
}

// TestDelegateEndsWithItsCaller: a runtime that gives up kills kith-cni, and asks for DEL: what a delegate did after that
// nobody would undo.
func TestDelegateEndsWithItsCaller(t *testing.T) {
	runtime, list, _ := delegating(t)
	socket := filepath.Join(t.TempDir(), "hang.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv(hangEnv, socket)
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := runtime.AddNetworkList(ctx, list, wanting("slow"))
		done <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	giveUp()
	// The delegate's end of the connection closes when it ends, and not before: a minute is for ever.
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the delegate goes on: %v", err)
	}
	_ = conn.Close()
	if err := <-done; err == nil {
		t.Error("ADD succeeded")
	}
}
