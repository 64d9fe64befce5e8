// Command kith-cni is the CNI plugin of Kith: what the container runtime executes. It hands each call
// to the agent of the node, over the agent's socket, and prints the reply.
package main

import (
	"context"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/client"
	"github.com/kithnet/kith/cni/pending"
)

func main() {
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
	result, err := agent(conf).Add(context.Background(), call(cni.CommandAdd, args))
	if err != nil {
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

func del(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	return agent(conf).Del(context.Background(), call(cni.CommandDel, args))
}

func check(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	return agent(conf).Check(context.Background(), call(cni.CommandCheck, args))
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
