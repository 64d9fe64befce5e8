// Command runtime is what a container runtime of before CNI 1.1.0 does with a network configuration list: it loads the
// file by libcni 1.1.2, and does one operation.
//
// Usage: runtime ADD|CHECK|DEL LIST PLUGINS CACHE CONTAINER NETNS. It prints the list's version, and after ADD the
// result's.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: runtime ADD|CHECK|DEL LIST PLUGINS CACHE CONTAINER NETNS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(operation, file string, args []string) error {
	list, err := libcni.ConfListFromFile(file)
	if err != nil {
		return err
	}
	list.DisableCheck = false
	fmt.Println("list", list.CNIVersion)
	ctx, runtime := context.Background(), libcni.NewCNIConfigWithCacheDir(args[:1], args[1], nil)
	conf := &libcni.RuntimeConf{ContainerID: args[2], NetNS: args[3], IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "ns"}, {"K8S_POD_NAME", args[2]}, {"K8S_POD_UID", "uid-" + args[2]},
	}}
	switch operation {
	case "ADD":
		result, err := runtime.AddNetworkList(ctx, list, conf)
		if err != nil {
			return err
		}
		fmt.Println("result", result.Version())
		return nil
	case "CHECK":
		return runtime.CheckNetworkList(ctx, list, conf)
	case "DEL":
		return runtime.DelNetworkList(ctx, list, conf)
	}
	return fmt.Errorf("unknown operation %q", operation)
}
