package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Addresses gives attachments their addresses. What it gives is on disk when it returns.
type Addresses interface {
	// Allocate records the attachment, with an address of each of the node's families, and returns it so.
	Allocate(Attachment) (Attachment, error)
	// Release forgets the attachment and frees its addresses. It succeeds if there is none.
	Release(Key) error
	// Available returns why no address could be allocated now, or nil.
	Available() error
}

// Records is what the node knows of its attachments; Addresses writes them.
type Records interface {
	Get(Key) (Attachment, bool)
	List() []Attachment
	// Commit marks the attachment complete.
	Commit(Key) error
}

// Links is the kernel's side of attachments.
type Links interface {
	// Create makes veth, addresses, routes and neighbours. The link carries nothing until its gate opens.
	Create(context.Context, Attachment) error
	// Check compares the kernel with the attachment and returns every difference.
	Check(context.Context, Attachment) error
	// Delete removes the veth with this host side. It succeeds if there is none.
	Delete(ctx context.Context, hostInterface string) error
	// List returns the host sides of all attachments' veths.
	List(context.Context) ([]string, error)
	// SandboxExists says whether a network namespace is still at this path.
	SandboxExists(netns string) bool
}

// Gate lets an attachment's packets pass, or not.
type Gate interface {
	// Open returns when the pod's own policy is in the kernel and its veth is open.
	Open(context.Context, Attachment) error
	// Close returns when no packet of the attachment passes. It succeeds if it was never open. The
	// attachment has no addresses when its record was lost.
	Close(context.Context, Attachment) error
	// Check returns why the attachment is not open, or nil.
	Check(context.Context, Attachment) error
}

// Connections is what the kernel remembers of the connections of addresses.
type Connections interface {
	// End forgets all that one of the addresses opened or answers: the next pod there must not go on with it.
	End(context.Context, []netip.Addr) error
}

// Deps is what the operations act through.
type Deps struct {
	Addresses   Addresses
	Records     Records
	Links       Links
	Gate        Gate
	Connections Connections
	// Ready returns why the agent could not serve an ADD now, or nil.
	Ready func(context.Context) error
	// MTU returns the MTU of new attachments.
	MTU func() int
}

// ErrUnavailable marks errors that pass with time: they become "try again later".
var ErrUnavailable = errors.New("not available now")

// CodeMismatch is the error code of a CHECK that found the attachment not as ADD left it.
const CodeMismatch uint = 100

func isTransient(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Add makes the request's attachment and returns when its packets may pass. A record of an Add that
// never finished is cleaned away first; one of an Add that did is an error. An agent that is not
// ready makes nothing.
func Add(ctx context.Context, d Deps, r Request) (*types100.Result, error) {
	if err := d.Ready(ctx); err != nil {
		return nil, types.NewError(types.ErrTryAgainLater, "the node is not ready", err.Error())
	}
	if old, ok := d.Records.Get(r.Key); ok {
		if old.Complete {
			return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID, CNI_IFNAME: already attached", r.Key.String())
		}
		if err := detach(ctx, d, old); err != nil {
			return nil, fmt.Errorf("clean unfinished attachment %s: %w", r.Key, err)
		}
	}
	a, err := d.Addresses.Allocate(NewAttachment(r, d.MTU()))
	if err != nil {
		return nil, fmt.Errorf("allocate addresses for %s: %w", r.Key, err)
	}
	if err := attach(ctx, d, a); err != nil {
		// The caller may have given up; what was begun must still be undone.
		undo := detach(context.WithoutCancel(ctx), d, a)
		return nil, errors.Join(err, undo)
	}
	return Result(a, r.Config.PrevResult), nil
}

func attach(ctx context.Context, d Deps, a Attachment) error {
	if err := d.Links.Create(ctx, a); err != nil {
		return fmt.Errorf("create link of %s: %w", a.Key, err)
	}
	if err := d.Gate.Open(ctx, a); err != nil {
		return fmt.Errorf("open %s: %w", a.Key, err)
	}
	if err := d.Records.Commit(a.Key); err != nil {
		return fmt.Errorf("record %s: %w", a.Key, err)
	}
	return nil
}

// detach keeps the record, and so the addresses, unless gate, link and connections are surely gone: an
// address in new hands must not meet the old pod's leftovers. Connections end last: no packet makes new
// ones then.
func detach(ctx context.Context, d Deps, a Attachment) error {
	var errs []error
	if err := d.Gate.Close(ctx, a); err != nil {
		errs = append(errs, fmt.Errorf("close %s: %w", a.Key, err))
	}
	if err := d.Links.Delete(ctx, a.HostInterface); err != nil {
		errs = append(errs, fmt.Errorf("delete link of %s: %w", a.Key, err))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if len(a.Addresses) > 0 {
		if err := d.Connections.End(ctx, a.Addresses); err != nil {
			return fmt.Errorf("end connections of %s: %w", a.Key, err)
		}
	}
	if err := d.Addresses.Release(a.Key); err != nil {
		return fmt.Errorf("release addresses of %s: %w", a.Key, err)
	}
	return nil
}

// Del removes the request's attachment. It succeeds if there is nothing left of it.
func Del(ctx context.Context, d Deps, k Key) error {
	a, ok := d.Records.Get(k)
	if !ok {
		a = attachmentOf(k)
	}
	return detach(ctx, d, a)
}

// GC removes every attachment of the request's network that the runtime does not call valid, and
// every veth of no attachment. It goes on after an error and returns all of them.
func GC(ctx context.Context, d Deps, r Request) error {
	keep := map[string]bool{}
	for _, k := range r.Config.ValidAttachments {
		keep[k.HostInterface()] = true
	}
	var errs []error
	for _, a := range d.Records.List() {
		if a.Network != r.Config.Name {
			keep[a.HostInterface] = true
		}
		if !keep[a.HostInterface] {
			errs = append(errs, detach(ctx, d, a))
		}
	}
	links, err := d.Links.List(ctx)
	if err != nil {
		errs = append(errs, fmt.Errorf("list links: %w", err))
	}
	for _, name := range links {
		if keep[name] {
			continue
		}
		if err := d.Links.Delete(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("delete link %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Status returns nil if the agent could serve an ADD now, else error 50 with the reason, or what
// Ready returned if that is an error of the specification (51: existing pods suffer too).
func Status(ctx context.Context, d Deps) error {
	err := d.Ready(ctx)
	if err == nil {
		err = d.Addresses.Available()
	}
	var spec *types.Error
	if errors.As(err, &spec) {
		return spec
	}
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "kith cannot serve ADD", err.Error())
	}
	return nil
}

// Orphans is what Reconcile found.
type Orphans struct {
	// Released are attachments whose link and sandbox are both gone: they were forgotten.
	Released []Attachment
	// Unknown are host sides of veths without a record: left for GC and DEL.
	Unknown []string
}

// Reconcile compares records and kernel, as the agent does when it starts. It forgets only what is
// provably dead: no link and no sandbox.
func Reconcile(ctx context.Context, d Deps) (Orphans, error) {
	links, err := d.Links.List(ctx)
	if err != nil {
		return Orphans{}, fmt.Errorf("list links: %w", err)
	}
	unknown := map[string]bool{}
	for _, name := range links {
		unknown[name] = true
	}
	var found Orphans
	var errs []error
	for _, a := range d.Records.List() {
		alive := unknown[a.HostInterface] || d.Links.SandboxExists(a.Netns)
		delete(unknown, a.HostInterface)
		if alive {
			continue
		}
		if err := detach(ctx, d, a); err != nil {
			errs = append(errs, err)
			continue
		}
		found.Released = append(found.Released, a)
	}
	for _, name := range links {
		if unknown[name] {
			found.Unknown = append(found.Unknown, name)
		}
	}
	return found, errors.Join(errs...)
}
