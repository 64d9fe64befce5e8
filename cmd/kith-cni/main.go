// Command kith-cni is the CNI plugin of Kith: what the container runtime executes. It hands each call
// to the agent of the node, over the agent's socket, and prints the reply. For pods with host ports or bandwidth limits
// it asks kith-portmap or kith-bandwidth, too.
package main

import (
	"context"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/client"
	"github.com/kithnet/kith/cni/pending"
)

func main() {
	// What this process starts ends with the thread that started it: this one lasts as long as the process.
	runtime.LockOSThread()
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  check,
		GC:     gc,
		Status: status,
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin kith-cni")
}

func add(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	ctx := context.Background()
	result, err := agent(conf).Add(ctx, call(cni.CommandAdd, args))
	if err != nil {
		return err
	}
	result, err = addDelegates(ctx, conf, result)
	if err != nil {
		return undo(err, agent(conf).Del(ctx, call(cni.CommandDel, args)))
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// del asks the agent whatever the delegates say: what a delegate cannot undo must not keep an address and a veth.
func del(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	ctx := context.Background()
	failed := delDelegates(ctx, conf, conf.PrevResult)
	if err := agent(conf).Del(ctx, call(cni.CommandDel, args)); err != nil {
		return err
	}
	if conf.PrevResult == nil {
		// ADD never ended well, and said why: what could not be done then has not to be undone now.
		return nil
	}
	return failed
}

func check(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := agent(conf).Check(ctx, call(cni.CommandCheck, args)); err != nil {
		return err
	}
	return checkDelegates(ctx, conf, conf.PrevResult)
}

func gc(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	return agent(conf).GC(context.Background(), call(cni.CommandGC, args))
}

func status(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	return agent(conf).Status(context.Background(), call(cni.CommandStatus, args))
}

func agent(conf cni.NetConf) client.Agent {
	dir := filepath.Join(filepath.Dir(conf.Socket), cni.PendingDir)
	return client.Agent{Socket: conf.Socket, Pending: pending.Folder(dir)}
}

func call(command cni.Command, args *skel.CmdArgs) cni.Call {
	return cni.Call{
		Command:     command,
		ContainerID: args.ContainerID,
		Netns:       args.Netns,
		IfName:      args.IfName,
		Args:        args.Args,
		Config:      args.StdinData,
	}
}
