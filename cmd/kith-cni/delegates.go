package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/kithnet/kith/cni"
)

// addDelegates asks each delegate in turn to add to the result. It undoes what was done when one fails.
func addDelegates(ctx context.Context, conf cni.NetConf, result *types100.Result) (*types100.Result, error) {
	for i, d := range conf.Delegates {
		next, err := addDelegate(ctx, conf, d, result)
		if err != nil {
			// The one that failed may have done a part.
			conf.Delegates = conf.Delegates[:i+1]
			return nil, undo(explain(making, d, err), delDelegates(ctx, conf, result))
		}
		result = next
	}
	return result, nil
}

func addDelegate(ctx context.Context, conf cni.NetConf, d cni.Delegate, result *types100.Result) (*types100.Result, error) {
	data, err := conf.DelegateConf(d, result)
	if err != nil {
		return nil, err
	}
	got, err := invoke.DelegateAdd(ctx, d.Name, data, &execution{})
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(got)
}

func checkDelegates(ctx context.Context, conf cni.NetConf, result *types100.Result) error {
	for _, d := range conf.Delegates {
		data, err := conf.DelegateConf(d, result)
		if err != nil {
			return err
		}
		if err := invoke.DelegateCheck(ctx, d.Name, data, &execution{}); err != nil {
			return explain(checking, d, err)
		}
	}
	return nil
}

// delDelegates asks all delegates, the last of ADD first, and returns what the first failed with.
func delDelegates(ctx context.Context, conf cni.NetConf, result *types100.Result) error {
	var failed error
	for _, d := range slices.Backward(conf.Delegates) {
		data, err := conf.DelegateConf(d, result)
		if err == nil {
			err = invoke.DelegateDel(ctx, d.Name, data, &execution{})
		}
		if err != nil && failed == nil {
			failed = explain(removing, d, err)
		}
	}
	return failed
}

// undo is what an ADD failed with, and what of it could not be undone; the delegate's own failure says the same twice.
func undo(err, undone error) error {
	if undone == nil || undone.Error() == err.Error() {
		return err
	}
	spec := cni.ToError(err)
	return types.NewError(spec.Code, spec.Msg, fmt.Sprintf("%s; then to undo it: %v", spec.Details, undone))
}

// What is done with a delegate's part.
const (
	making   = "make"
	checking = "check"
	removing = "remove"
)

// explain says what a delegate failed at, and what to do.
func explain(doing string, d cni.Delegate, err error) error {
	code := types.ErrInternal
	var spec *types.Error
	if errors.As(err, &spec) {
		code = spec.Code
	}
	what, fix := fmt.Sprintf("cannot %s the pod's %s (%s)", doing, d.For, d.Name), remedy(d)
	if doing == making {
		fix += map[string]string{
			cni.Portmap:   ", or remove hostPort from the pod",
			cni.Bandwidth: ", or remove the pod's annotations kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth",
		}[d.Name]
	}
	return types.NewError(code, what, err.Error()+": "+fix)
}

func remedy(d cni.Delegate) string {
	if _, err := invoke.FindInPath(d.Name, filepath.SplitList(os.Getenv("CNI_PATH"))); err != nil {
		return "start Kith's pod on this node again, which installs " + d.Name
	}
	if d.Name == cni.Bandwidth {
		return "the kernel needs ifb, sch_tbf, sch_ingress and act_mirred: load these modules on the node"
	}
	for _, tool := range []string{"iptables", "nft"} {
		if _, err := exec.LookPath(tool); err == nil {
			return "look why " + tool + " does not work on the node"
		}
	}
	return fmt.Sprintf("neither nft nor iptables is in the container runtime's PATH (%s): install nftables or iptables on the node", os.Getenv("PATH"))
}
