package ruleset

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Compiler keeps the wanted ruleset up to date, event by event, at a cost of what changes. Whatever the order of the
// events, and however often each comes, the result is that of Compile. It is not safe for concurrent use.
type Compiler struct {
	table       *identity.Table
	policies    map[policy.Name]policy.Policy
	policiesIn  map[string]map[policy.Name]struct{} // by namespace
	attachments map[string]*attached                // by interface
	claims      map[netip.Addr][]string             // the interfaces that claim an address, sorted: the first has it
	network     Network
	limits      limits
	proved      proved

	peers     peerIndex
	chains    map[string]*chain
	chainsOf  map[policy.Name][]*chain
	byAddress map[*chain]struct{} // chains with named blocks
	names     map[*identity.Identity]*naming
	closing   int                   // contents that deny pods, and so what is not known
	namesAll  bool                  // the kernel knows every identity, not only those that some rule names
	domains   map[policy.Domain]int // how many contents name each
	lists     map[string]*list
	hash      func(string) string // of what names stand for
	want      *wanted
	dirty     dirt
}

// dirt is what settle has to look at again.
type dirt struct {
	policies    map[policy.Name]*policy.Policy // as they were; nil: there was none
	attachments map[string]struct{}
	departed    []*attached                     // still in the ruleset
	renamed     map[*identity.Identity]struct{} // named now, or not any more
	unused      map[*chain]struct{}
	idle        map[string]struct{} // lists
	memo        memo
	network     bool
	limits      bool
	proved      bool
}

// NewCompiler is empty: its ruleset has the fixed chains and sets, and lets no pod do anything.
func NewCompiler() *Compiler {
	c := &Compiler{
		table: identity.NewTable(), policies: map[policy.Name]policy.Policy{}, policiesIn: map[string]map[policy.Name]struct{}{},
		attachments: map[string]*attached{}, claims: map[netip.Addr][]string{},
		peers: newPeerIndex(), chains: map[string]*chain{}, chainsOf: map[policy.Name][]*chain{},
		byAddress: map[*chain]struct{}{}, names: map[*identity.Identity]*naming{}, domains: map[policy.Domain]int{},
		lists: map[string]*list{}, hash: hash128,
		want: newWanted(), dirty: newDirt(),
	}
	c.dirty.network = true
	c.want.frame()
	return c
}

// PutPod adds a pod or replaces what is known of it.
func (c *Compiler) PutPod(p identity.Pod) { c.table.PutPod(p) }

// DeletePod forgets a pod.
func (c *Compiler) DeletePod(k identity.PodKey) { c.table.DeletePod(k) }

// ReplacePods makes the pods exactly these.
func (c *Compiler) ReplacePods(pods []identity.Pod) { c.table.ReplacePods(pods) }

// PutNamespace adds a namespace or changes its labels.
func (c *Compiler) PutNamespace(n identity.Namespace) { c.table.PutNamespace(n) }

// DeleteNamespace forgets a namespace.
func (c *Compiler) DeleteNamespace(name string) { c.table.DeleteNamespace(name) }

// ReplaceNamespaces makes the namespaces exactly these.
func (c *Compiler) ReplaceNamespaces(all []identity.Namespace) { c.table.ReplaceNamespaces(all) }

// PutPolicy adds or replaces a policy.
func (c *Compiler) PutPolicy(p policy.Policy) {
	c.dirty.note(p.Key(), c.policies)
	c.policies[p.Key()] = p
	if c.policiesIn[p.Namespace] == nil {
		c.policiesIn[p.Namespace] = map[policy.Name]struct{}{}
	}
	c.policiesIn[p.Namespace][p.Key()] = struct{}{}
}

// DeletePolicy forgets a policy.
func (c *Compiler) DeletePolicy(n policy.Name) {
	if _, ok := c.policies[n]; ok {
		c.dirty.note(n, c.policies)
		delete(c.policies, n)
		delete(c.policiesIn[n.Namespace], n)
		if len(c.policiesIn[n.Namespace]) == 0 {
			delete(c.policiesIn, n.Namespace)
		}
	}
}

// ReplacePolicies makes the policies exactly these.
func (c *Compiler) ReplacePolicies(all []policy.Policy) {
	keep := make(map[policy.Name]struct{}, len(all))
	for _, p := range all {
		keep[p.Key()] = struct{}{}
		c.PutPolicy(p)
	}
	for n := range c.policies {
		if _, ok := keep[n]; !ok {
			c.DeletePolicy(n)
		}
	}
}

// PutAttachment adds an attachment, or replaces the one on its interface.
func (c *Compiler) PutAttachment(a Attachment) {
	if old := c.attachments[a.Interface]; old != nil && reflect.DeepEqual(old.Attachment, a) {
		return
	}
	c.DeleteAttachment(a.Interface)
	a.Addresses = slices.Clone(a.Addresses)
	c.attachments[a.Interface] = &attached{Attachment: a}
	for _, addr := range a.Addresses {
		claims := append(c.claims[addr], a.Interface)
		slices.Sort(claims)
		c.claims[addr] = claims
	}
	c.repin(a.Addresses)
	c.dirty.attachments[a.Interface] = struct{}{}
}

// DeleteAttachment closes the attachment on an interface and forgets it.
func (c *Compiler) DeleteAttachment(name string) {
	a := c.attachments[name]
	if a == nil {
		return
	}
	delete(c.attachments, name)
	for _, addr := range a.Addresses {
		c.claims[addr] = slices.DeleteFunc(c.claims[addr], func(s string) bool { return s == name })
	}
	c.repin(a.Addresses)
	c.dirty.departed = append(c.dirty.departed, a)
}

// ReplaceAttachments makes the attachments exactly these.
func (c *Compiler) ReplaceAttachments(all []Attachment) {
	keep := make(map[string]struct{}, len(all))
	for _, a := range all {
		keep[a.Interface] = struct{}{}
	}
	for name := range c.attachments {
		if _, ok := keep[name]; !ok {
			c.DeleteAttachment(name)
		}
	}
	for _, a := range all {
		c.PutAttachment(a)
	}
}

// SetNetwork replaces what the guard and NAT chains need to know.
func (c *Compiler) SetNetwork(n Network) {
	if reflect.DeepEqual(c.network, n) {
		return
	}
	c.network = n
	c.dirty.network = true
}

// Ruleset is the whole wanted ruleset, a copy.
func (c *Compiler) Ruleset() Ruleset {
	c.settle()
	return c.want.copy()
}

// Commit is the difference between the ruleset at the last Commit and now.
func (c *Compiler) Commit() Transaction {
	c.settle()
	return c.want.commit()
}

// Opened says whether the attachment on an interface is open in the ruleset.
func (c *Compiler) Opened(name string) bool {
	c.settle()
	_, ok := c.want.ruleset.Sets[SetOpened].Elements[interfaceKey(name)]
	return ok
}

// Claimed says whether the API gives any of an attachment's addresses to another pod.
func (c *Compiler) Claimed(a Attachment) bool {
	return slices.ContainsFunc(a.Addresses, func(addr netip.Addr) bool { return c.table.Claimed(addr, a.Pod) })
}

// Hint takes a node's word on whose its addresses are.
func (c *Compiler) Hint(h identity.Hint) { c.table.Hint(h) }

// DropHints forgets the words whose time is over.
func (c *Compiler) DropHints(now time.Time) { c.table.DropHints(now) }

// Unstated are the attachments of pods of which the API names no address yet.
func (c *Compiler) Unstated() []Attachment {
	var out []Attachment
	for _, a := range c.attachments {
		if !c.table.Stated(identity.Pin{Pod: a.Pod, UID: a.UID}) {
			out = append(out, a.Attachment)
		}
	}
	return out
}

// Counts says what the compiler holds. Opened are the attachments whose pods may talk, subjects those that a policy
// isolates.
type Counts struct {
	Pods, Namespaces, Identities, Policies int
	Attachments, Opened, Subjects, Chains  int
}

// Counts says what the compiler holds.
func (c *Compiler) Counts() Counts {
	c.settle()
	n := Counts{Policies: len(c.policies), Attachments: len(c.attachments), Chains: len(c.chains)}
	n.Pods, n.Namespaces, n.Identities = c.table.Counts()
	n.Opened = len(c.want.ruleset.Sets[SetOpened].Elements)
	for _, a := range c.attachments {
		if a.ingress.bound() || a.egress.bound() {
			n.Subjects++
		}
	}
	return n
}
