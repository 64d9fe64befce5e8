// Package firewall keeps the node's other firewalls from dropping what pods send and receive.
//
// What one base chain of the forward hook accepts, the next may drop: with Docker or ufw, iptables' FORWARD drops what no rule
// of theirs accepts, and so all packets of all pods. Input: the beginning of the names of the interfaces that are ours. Output:
// in each chain FORWARD of iptables (by nf_tables) that closes, two rules at its top that accept what comes from those interfaces
// and what goes to them; and the other chains that close, in words. Policies are enforced elsewhere, and stay.
//
// Invariants: a chain that closes nothing is left alone; nothing of another's is changed or removed; where all is there, nothing is
// written. What flushes a chain is heard of by event.
//
// Out of scope: iptables by the kernel's older tables, which are not nf_tables', and what comes to the node itself.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// pause is how long we look at nothing after a look: firewalls change many rules at once.
const pause = 300 * time.Millisecond

// note is the comment of our rules.
const note = "kith: pods, whose policies are in table inet kith"

// Keeper keeps the chains of one network namespace.
type Keeper struct {
	prefix    string
	conn      *nftables.Conn
	events    *netlink.Conn
	mu        sync.Mutex
	networks  []netip.Prefix
	stale     bool // they are other than when we last looked
	obstacles []string
}

// Open hears what changes from now on. Namespace is an open file of a network namespace, 0 for the process's own; prefix is that of
// the interfaces.
func Open(namespace int, prefix string) (*Keeper, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	events, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: namespace})
	if err != nil {
		return nil, fmt.Errorf("hear of other firewalls: %w", err)
	}
	if err := errors.Join(events.SetReadBuffer(1<<20), events.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		return nil, errors.Join(fmt.Errorf("hear of other firewalls: %w", err), events.Close())
	}
	return &Keeper{prefix: prefix, conn: conn, events: events}, nil
}

// SetNetworks says where pods' addresses are.
func (k *Keeper) SetNetworks(networks []netip.Prefix) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Equal(k.networks, networks) {
		return
	}
	k.networks, k.stale = slices.Clone(networks), true
	_ = k.events.SetReadDeadline(time.Unix(0, 1))
}

// Problems are the chains that close and that we cannot open.
func (k *Keeper) Problems() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.obstacles)
}

// Run keeps the chains until ctx ends. say is called when what it found is other than before.
func (k *Keeper) Run(ctx context.Context, say func(changed []string, err error)) error {
	stop := context.AfterFunc(ctx, func() { _ = k.events.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	defer k.events.Close()
	before := ""
	for {
		err := k.Keep()
		now := strings.Join(k.Problems(), "\n") + fmt.Sprint(err)
		if now != before {
			say(k.Problems(), err)
		}
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if !k.wait(ctx) {
			return nil
		}
	}
}

// wait returns when a firewall may have changed. It says no when ctx has ended.
func (k *Keeper) wait(ctx context.Context) bool {
	k.mu.Lock()
	_ = k.events.SetReadDeadline(time.Time{})
	stale := k.stale
	k.mu.Unlock()
	for ctx.Err() == nil {
		if stale {
			return true
		}
		messages, err := k.events.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			return true
		}
		if err != nil {
			return ctx.Err() == nil
		}
		for _, m := range messages {
			if aboutRules(uint16(m.Header.Type), m.Data) {
				return true
			}
		}
	}
	return false
}

// Keep looks at all chains of the forward hook once, and opens those that it can.
func (k *Keeper) Keep() error {
	k.mu.Lock()
	k.stale = false
	k.mu.Unlock()
	chains, err := k.conn.ListChains()
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	var obstacles []string
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter || slices.Contains(busy(), c.Table.Name) {
			continue
		}
		obstacle, err := k.open(c, chains)
		if err != nil {
			return fmt.Errorf("chain %s of table %s %s: %w", c.Name, familyName(c.Table.Family), c.Table.Name, err)
		}
		if obstacle != "" {
			obstacles = append(obstacles, obstacle)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.obstacles = obstacles
	return nil
}

// open opens a chain, if it closes and is iptables'. Otherwise it says what is in the way.
func (k *Keeper) open(c *nftables.Chain, all []*nftables.Chain) (obstacle string, err error) {
	rules, err := k.conn.GetRules(c.Table, c)
	if err != nil {
		return "", fmt.Errorf("list rules: %w", err)
	}
	at, closed := closes(c, rules)
	if !closed || len(missing(rules[:at], k.prefix)) == 0 {
		return "", nil
	}
	if c.Table.Name == "filter" && c.Name == "FORWARD" && (c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6) {
		return "", k.insert(c, rules)
	}
	known, err := k.known(c.Table, all)
	if known || err != nil {
		return "", err
	}
	return k.describe(c), nil
}

// insert puts our rules before all others. What of them is further behind goes.
func (k *Keeper) insert(c *nftables.Chain, rules []*nftables.Rule) error {
	for _, r := range rules {
		if accepts(r, expr.MetaKeyIIFNAME, k.prefix) || accepts(r, expr.MetaKeyOIFNAME, k.prefix) {
			if err := k.conn.DelRule(r); err != nil {
				return err
			}
		}
	}
	for _, exprs := range slices.Backward(ours(k.prefix)) {
		k.conn.InsertRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, note)})
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("accept pods' packets: %w", err)
	}
	return nil
}

// known says whether some rule of a table names the pods' networks.
func (k *Keeper) known(t *nftables.Table, all []*nftables.Chain) (bool, error) {
	k.mu.Lock()
	networks := k.networks
	k.mu.Unlock()
	for _, c := range all {
		if c.Table.Name != t.Name || c.Table.Family != t.Family {
			continue
		}
		rules, err := k.conn.GetRules(c.Table, c)
		if err != nil {
			return false, err
		}
		if names(rules, networks) {
			return true, nil
		}
	}
	return false, nil
}

func (k *Keeper) describe(c *nftables.Chain) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	fix := fmt.Sprintf("accept there what comes from interfaces %s* and what goes to them", k.prefix)
	if c.Table.Name == "firewalld" {
		var sources []string
		for _, n := range k.networks {
			sources = append(sources, "--add-source="+n.String())
		}
		fix = fmt.Sprintf("run on the node: firewall-cmd --permanent --zone=trusted %s && firewall-cmd --reload", strings.Join(sources, " "))
	}
	return fmt.Sprintf("chain %s of nftables' table %s %s drops what is forwarded, and so pods' packets: %s", c.Name, familyName(c.Table.Family), c.Table.Name, fix)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return fmt.Sprintf("of family %d", f)
}
