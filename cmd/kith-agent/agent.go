package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/kithnet/kith/cmd/kith-agent/config"
	"github.com/kithnet/kith/cni/ipam"
	"github.com/kithnet/kith/cni/veth"
	"github.com/kithnet/kith/deploy"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/identity/announce"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/gossip"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/conntrack/kernel"
	"github.com/kithnet/kith/policy/dns/tap"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
)

// agent holds the parts of one node's agent. Each long-lived part is a task in one group: when one fails, all end,
// and the process starts again with the kernel as it was.
type agent struct {
	log     *slog.Logger
	cfg     config.Config
	node    string
	started time.Time
	client  kubernetes.Interface

	folder     disk.Folder
	keys       *wireguard.Keyring
	speaker    *speaker
	notary     *notary
	secret     *gossipKeys
	known      *knownNodes
	bounds     *bounds
	admission  *admissionCheck
	device     *wireguard.Device
	links      *veth.Links
	upkeep     *upkeep
	store      *ipam.Store
	table      *nft.Table
	nodes      *overlaykube.Nodes
	identities *identitykube.Watch
	policies   *policykube.Watch
	over       *policykube.ClusterWatch
	servers    *policykube.NameServers
	problems   policyProblems
	decrees    decrees
	vacated    vacated // the enforcer's
	screen     *screen
	order      *order
	enforcer   *enforcer
	learner    *learner
	heard      tap.Audience // whose names are learned, as the log says
	mesher     *mesher
	lanes      *lanes
	gossip     *gossip.Gossip
	prober     *probe.Prober
	hearsay    *hearsay
	announcer  *announce.Announcer
	// connections is the kernel's table of them; keeper keeps room in it.
	connections kernel.Table
	keeper      guardian
	firewalls   firewalls

	obstacle  atomic.Pointer[error] // what keeps gossip from starting
	networked chan struct{}         // signals that the nodes have changed
	memorable chan struct{}         // signals that there may be more to remember
	moved     chan struct{}         // signals that readiness may have changed
	redrawn   chan struct{}         // signals that the mesh may have changed
	meshed    chan struct{}         // closed when mesher, gossip and prober are set
}

func run(ctx context.Context, log *slog.Logger, cfg config.Config, procSys string) error {
	a, err := newAgent(log, cfg, procSys)
	if err != nil {
		return err
	}
	defer a.close()
	log.Info("agent starts", "node", a.node, "version", version, "device", a.device.Kind())
	a.resume()
	return together(ctx, map[string]task{"enforce policy": a.enforce}, map[string]task{
		"learn names":            a.learner.run,
		"watch connections":      a.watchConnections,
		"keep firewalls open":    a.keepFirewalls,
		"watch nodes":            a.nodes.Run,
		"watch identities":       a.identities.Run,
		"watch policies":         a.policies.Run,
		"watch cluster policies": a.over.Run,
		"watch name servers":     a.servers.Run,
		"watch device":           a.device.Run,
		"watch gossip key":       a.secret.run,
		"publish claim":          a.publish,
		"remember mesh":          a.remember,
		"check admission":        a.checkAdmission,
		"compare admission":      a.admission.watch,
		"learn bounds":           a.learnBounds,
		"gather input":           a.gather,
		"order changes":          a.order.run,
		"keep mesh":              a.keepMesh,
		"serve":                  a.serve,
		"answer probes":          a.answerProbes,
		"announce":               a.announce,
		"tell what is enforced":  a.tellEnforced,
		"write conditions":       a.writeConditions,
	})
}

func (a *agent) enforce(ctx context.Context) error {
	a.enforcer.foreign = a.table.Watch(ctx)
	return a.enforcer.run(ctx)
}

// task returns when ctx ends, or with the error that ends the agent.
type task func(ctx context.Context) error

// together runs tasks until ctx ends or one fails. Those that the others need to the very end, to undo what they began,
// end after them.
func together(ctx context.Context, needed, tasks map[string]task) error {
	g, ctx := errgroup.WithContext(ctx)
	last, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var others sync.WaitGroup
	start := func(ctx context.Context, name string, t task, ended func()) {
		g.Go(func() error {
			defer ended()
			if err := t(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	for name, t := range needed {
		start(last, name, t, func() {})
	}
	for name, t := range tasks {
		others.Add(1)
		start(ctx, name, t, others.Done)
	}
	others.Wait()
	end()
	return g.Wait()
}

func newAgent(log *slog.Logger, cfg config.Config, procSys string) (*agent, error) {
	a := &agent{
		log: log, cfg: cfg, node: os.Getenv("NODE_NAME"), started: time.Now(), links: veth.New(procSys),
		screen: newScreen(), folder: disk.Folder(cfg.StateDir), notary: newNotary(log, cfg.Gossip.Port),
		networked: make(chan struct{}, 1), memorable: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		redrawn: make(chan struct{}, 1), meshed: make(chan struct{}),
	}
	if a.node == "" {
		return nil, errors.New("NODE_NAME is empty: set it to the name of the Node (fieldRef spec.nodeName)")
	}
	err := errors.Join(a.openNode(procSys), a.openCluster())
	if err != nil {
		a.close()
		return nil, err
	}
	a.enforcer = newEnforcer(log, a.table)
	a.enforcer.moved = a.written
	a.order = newOrder(log, a.enforcer, a.screen, orderSources{a.policies, a.over, a.identities}, func() int { return len(a.known.List()) })
	a.learner = newLearner(log, a.table.Pupil())
	a.enforcer.listen, a.enforcer.remind = a.learner.listen, a.learner.remind
	a.connections = kernel.New("/proc/sys")
	a.hearsay = newHearsay(a.enforcer)
	a.announcer = announce.New(cfg.Announce.Port, ruleset.Devices[:], a.hearsay.take)
	return a, nil
}

// openNode opens what is on the node: state folder, keys, device, table.
func (a *agent) openNode(procSys string) error {
	err := os.MkdirAll(a.cfg.StateDir, 0o700)
	if err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	// The kubelet may have made it, open to all.
	if err := os.Chmod(a.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("close state folder to others: %w", err)
	}
	if err := a.folder.Sweep(); err != nil {
		a.log.Warn("files that a crash left unfinished stay: keys are in them", "error", err)
	}
	if a.keys, err = wireguard.LoadKeys(a.folder.File(wireguard.KeyFile)); err != nil {
		return err
	}
	if a.speaker, err = newSpeaker(a.log, a.node, a.folder, a.keys.Prover); err != nil {
		return err
	}
	mode, err := wireguard.ParseMode(string(a.cfg.WireGuard.Implementation))
	if err != nil {
		return err
	}
	a.device, err = wireguard.Open(wireguard.Options{
		Names: ruleset.Devices, Keys: a.keys, Mode: mode, ProcSys: procSys,
	})
	if err != nil {
		return err
	}
	if a.store, err = ipam.Open(filepath.Join(a.cfg.StateDir, "ipam")); err != nil {
		return err
	}
	a.upkeep = newUpkeep(a.log, a.links, a.store)
	if a.table, err = nft.Open(); err != nil {
		return err
	}
	if err = a.firewalls.open(); err != nil {
		return err
	}
	return a.links.ForwardIPv4()
}

// openCluster prepares the watches; nothing is asked of the API server yet.
func (a *agent) openCluster() error {
	rc, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find API server: %w", err)
	}
	// Every ADD asks for its pod, namespace and policies, and a node may start all its pods at once.
	rc.QPS, rc.Burst = 100, 400
	rc.UserAgent = "kith-agent/" + version
	resources, err := dynamic.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("make API client for cluster network policies: %w", err)
	}
	// Protocol buffers cost a fraction of JSON's garbage: a list of all pods is what the agent's memory peaks at.
	rc.ContentType, rc.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	if a.client, err = kubernetes.NewForConfig(rc); err != nil {
		return fmt.Errorf("make API client: %w", err)
	}
	names, err := metadata.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("make API client for names: %w", err)
	}
	if a.nodes, err = overlaykube.New(a.client, a.node, a.log); err != nil {
		return err
	}
	if !a.cfg.HoldSigningKeys {
		a.notary.ledger.FollowKeys()
	}
	remembered := a.recall()
	a.bounds = newBounds(a.log, a.node, a.cfg.PodCIDRs)
	a.known = newKnownNodes(a.nodes, remembered.Nodes, a.bounds.Get, a.notary)
	shipped, err := shippedAdmissions(deploy.AdmissionPolicies(namespace()))
	if err != nil {
		return err
	}
	a.admission = &admissionCheck{log: a.log, client: a.client, shipped: shipped}
	a.secret = newGossipKeys(a.log, a.client, namespace(), remembered.GossipKeys)
	a.secret.accept = a.notary.Accept
	a.identities = identitykube.New(a.client, identitykube.Sink{Pods: a.podsChanged, Namespaces: a.namespacesChanged})
	if a.policies, err = policykube.New(a.client, names, a.policyChanged); err != nil {
		return err
	}
	if a.over, err = policykube.NewCluster(resources, a.log, a.policyChanged); err != nil {
		return err
	}
	a.servers, err = policykube.NewNameServers(a.client, a.nameServersChanged)
	return err
}

func (a *agent) close() {
	if a.device != nil {
		if err := a.device.Close(); err != nil {
			a.log.Warn("device not closed", "error", err)
		}
	}
	if a.table != nil {
		if err := a.table.Close(); err != nil {
			a.log.Warn("table not closed", "error", err)
		}
	}
	if a.store != nil {
		if err := a.store.Close(); err != nil {
			a.log.Warn("address store not closed", "error", err)
		}
	}
}

func (a *agent) podsChanged(c identitykube.PodChange) {
	a.enforcer.Put(changed(c, identity.Pod.Key), func(r *ruleset.Compiler) { a.order.pods(c, r) })
}

// everyOf is all objects of a kind.
type everyOf[T any] struct{}

// changed is what a change is of: one object, or all of a kind.
func changed[T any, K comparable](c identitykube.Change[T, K], key func(T) K) any {
	switch {
	case c.All:
		return everyOf[T]{}
	case len(c.Delete) > 0:
		return c.Delete[0]
	}
	return key(c.Put[0])
}

func (a *agent) namespacesChanged(c identitykube.NamespaceChange) {
	a.enforcer.Put(changed(c, func(n identity.Namespace) string { return n.Name }), func(r *ruleset.Compiler) { a.order.namespaces(c, r) })
}

func (a *agent) policyChanged(c policykube.Change) {
	c = c.Bounded(a.cfg.Policy.MaxElements)
	for _, p := range a.problems.replace(c.Name, c.Problems) {
		a.log.Warn("policy has a problem: its pods stay isolated and the part at fault allows nothing", "error", p)
	}
	a.enforcer.Put(c.Name, func(r *ruleset.Compiler) {
		a.decrees.take(c)
		if c.Put == nil {
			r.DeletePolicy(c.Name)
			return
		}
		r.PutPolicy(*c.Put)
	})
}

// nodesChanged hands the nodes, as granted, to all who need them: guard and masquerading, addresses for pods, key
// publishing.
func (a *agent) nodesChanged(nodes []overlay.Node) {
	for _, p := range a.bounds.news(a.known.Grants().Problems) {
		a.log.Warn("node is refused what it asks for", "kind", p.Kind, "node", p.Node, "problem", p.Detail)
	}
	n := network(a.node, nodes, a.cfg.NonMasqueradeCIDRs)
	n.Resets = a.keeper.resets.able()
	n.Ports = ruleset.Ports{
		Gossip: a.cfg.Gossip.Port, WireGuard: a.cfg.WireGuard.Port, Probe: a.cfg.Probe.Port, Announce: a.cfg.Announce.Port,
	}
	if !a.cfg.Masquerade {
		n.NoMasquerade = everywhere()
	}
	a.keeper.SetNetwork(n)
	a.firewalls.setNetwork(n)
	fits := func(cidr netip.Prefix) bool { return a.bounds.Get().Fits(cidr, nodes) }
	a.enforcer.Update(func(r *ruleset.Compiler) {
		r.SetNetwork(a.vacated.keep(n, time.Now(), fits))
		a.screen.nodes(n.Nodes, r)
	})
	for _, node := range n.Nodes {
		if node.Name != a.node {
			continue
		}
		if err := a.store.SetCIDRs(node.PodCIDRs); err != nil {
			a.log.Error("pod CIDRs not taken", "error", err)
		}
		if err := a.forward(node.PodCIDRs); err != nil {
			a.log.Error("node does not forward", "error", err)
		}
	}
	nudge(a.networked)
	nudge(a.memorable)
}

func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// move tells that readiness may have changed.
func (a *agent) move() { nudge(a.moved) }

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// namespace is where the agent's own objects are.
func namespace() string {
	text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "kith-system"
	}
	return strings.TrimSpace(string(text))
}
