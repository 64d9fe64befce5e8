package manifest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// finish fills in what the manifests lack, and makes the ends of all pods.
func (r *reader) finish(podCIDRs []netip.Prefix) Manifests {
	var notes notes
	if r.home == "default" && r.otherNamespaces() {
		notes.count("objects without metadata.namespace, taken as in namespace default (-n)", r.unnamed)
	}
	notes = append(notes, r.standIns()...)
	r.sort()
	notes.list("namespaces that are not here, taken without labels but their name", r.addNamespaces())
	notes.count("pods without status.podIP, given addresses (-pod-cidr) that an ipBlock may see otherwise in the cluster", r.addAddresses(podCIDRs))
	found := Manifests{}
	finished := r.ends(&found)
	notes.count("pods that have ended, left out", finished)
	for _, late := range r.late {
		notes.add("pod %s is left out: its address is that of a newer pod", late)
	}
	notes.count("pods on their node's network, left out of a matrix that does not name them", len(found.Hosts))
	nobody, nowhere := r.idle()
	notes.list("policies whose namespace neither a Namespace nor a pod here has", nowhere)
	notes.list("policies that select no pod here", nobody)
	slices.Sort(r.others)
	notes.list("passed over in folders, as they are no manifests (no kind or no apiVersion)", r.others)
	notes.count("objects that are here more than once, the same to the letter, taken once", r.again)
	notes.list("rules of a direction that their policy's policyTypes leave out, without effect", r.idleRules)
	notes.list("policies of one tier and priority that act differently on a pod here: the API leaves open which is asked first, Kith asks by name", r.contradictions())
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(r.passedOver)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.passedOver[kind]))
	}
	if len(kinds) > 0 {
		notes.add("passed over, as no policy looks at them: %s", strings.Join(kinds, ", "))
	}
	for _, field := range slices.Sorted(maps.Keys(r.newer)) {
		notes.add("%s: there is no field %s in the API that this program knows", r.newer[field], field)
	}
	found.Services = r.behind(slices.Concat(found.Ends, found.Hosts))
	found.Cluster, found.Notes = r.cluster, notes
	return found
}

type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

func (n *notes) count(what string, number int) {
	if number > 0 {
		n.add("%s: %d", what, number)
	}
}

// list names a few.
func (n *notes) list(what string, names []string) {
	if len(names) == 0 {
		return
	}
	const most = 5
	text := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d others", len(names)-most)
	}
	n.add("%s: %s", what, text)
}

func (r *reader) sort() {
	slices.SortFunc(r.pods, func(a, b pod) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	slices.SortFunc(r.cluster.Namespaces, func(a, b identity.Namespace) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.cluster.Nodes, func(a, b policy.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.cluster.Policies, func(a, b policy.Policy) int { return strings.Compare(a.Key().String(), b.Key().String()) })
}

// otherNamespaces: not all that is in a namespace is in that of objects that name none.
func (r *reader) otherNamespaces() bool {
	return slices.ContainsFunc(r.pods, func(p pod) bool { return p.Namespace != r.home }) ||
		slices.ContainsFunc(r.workloads, func(w workload) bool { return w.template.Namespace != r.home }) ||
		slices.ContainsFunc(r.cluster.Policies, func(p policy.Policy) bool { return p.Namespace != "" && p.Namespace != r.home })
}

// addNamespaces adds those that only pods name; a selector that looks at their labels finds none.
func (r *reader) addNamespaces() []string {
	known := map[string]bool{}
	for _, ns := range r.cluster.Namespaces {
		known[ns.Name] = true
	}
	var added []string
	for _, p := range r.pods {
		if !known[p.Namespace] {
			known[p.Namespace] = true
			added = append(added, p.Namespace)
			r.cluster.Namespaces = append(r.cluster.Namespaces, identity.Namespace{Name: p.Namespace})
		}
	}
	return added
}

// ends makes the cluster's pods and their ends, and says how many have ended.
func (r *reader) ends(to *Manifests) (finished int) {
	nodes := map[string]policy.Node{}
	for _, n := range r.cluster.Nodes {
		nodes[n.Name] = n
	}
	owner := r.owners()
	for _, p := range r.pods {
		p.Addresses = slices.DeleteFunc(p.Addresses, func(a netip.Addr) bool { return owner[a].Key() != p.Key() })
		end := matrix.End{Name: p.Key().String(), Namespace: p.Namespace, Labels: p.Labels, Addresses: p.Addresses, Twin: p.twin}
		switch {
		case p.finished:
			finished++
		case p.host:
			if end.Addresses = p.hostIPs; len(end.Addresses) == 0 {
				end.Addresses = nodes[p.node].Addresses
			}
			to.Hosts = append(to.Hosts, end)
		case len(p.Addresses) == 0:
			r.late = append(r.late, end.Name)
		default:
			r.cluster.Pods = append(r.cluster.Pods, p.Pod)
			if len(p.twin) > 0 {
				r.cluster.Pods = append(r.cluster.Pods, p.another())
			}
			to.Ends = append(to.Ends, end)
		}
	}
	return finished
}

// owners are the pods that addresses belong to: of several the newest.
func (r *reader) owners() map[netip.Addr]identity.Pod {
	owner := map[netip.Addr]identity.Pod{}
	for _, p := range r.pods {
		for _, a := range p.Addresses {
			if known, taken := owner[a]; !taken || p.Newer(known) {
				owner[a] = p.Pod
			}
		}
	}
	return owner
}

// idle are the policies that hold for no pod, and apart from them those whose namespace nobody has.
func (r *reader) idle() (nobody, nowhere []string) {
	spaces := map[string]identity.Namespace{}
	for _, ns := range r.cluster.Namespaces {
		spaces[ns.Name] = ns
	}
	kinds := map[identity.Key]*identity.Identity{}
	for _, p := range r.cluster.Pods {
		id := identity.New(spaces[p.Namespace], p)
		kinds[id.Key()] = id
	}
	all := slices.Collect(maps.Values(kinds))
	for _, p := range r.cluster.Policies {
		_, known := spaces[p.Namespace]
		switch {
		case p.Namespace != "" && !known:
			nowhere = append(nowhere, p.Key().String())
		case !slices.ContainsFunc(all, func(id *identity.Identity) bool { return p.Selects(id.Namespace(), id.NamespaceLabels(), id.Labels()) }):
			nobody = append(nobody, p.Key().String())
		}
	}
	return nobody, nowhere
}
