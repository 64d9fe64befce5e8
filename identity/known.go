package identity

import "slices"

// Known is what the table holds of a pod but for its addresses, and whether it holds the pod.
func (t *Table) Known(k PodKey) (Pod, bool) {
	r := t.pods[k]
	if r == nil {
		return Pod{}, false
	}
	return Pod{
		Namespace: k.Namespace, Name: k.Name, UID: r.uid,
		Labels: r.entry.id.labels.Map(), Ports: slices.Clone(r.entry.id.ports),
	}, true
}

// SameLabels says whether the table has the pod under this UID with the same labels and ports.
func (t *Table) SameLabels(p Pod) bool {
	r := t.pods[p.Key()]
	return r != nil && r.uid == p.UID && slices.Equal(r.entry.id.labels, MakeLabels(p.Labels)) &&
		slices.Equal(r.entry.id.ports, canonicalPorts(p.Ports))
}

// Imagine is the identity that a pod would have in its namespace as the table has that, or nil if it does not know it.
func (t *Table) Imagine(p Pod) *Identity {
	s := t.spaces[p.Namespace]
	if s == nil || !s.known {
		return nil
	}
	return newIdentity(p.Namespace, s.labels, MakeLabels(p.Labels), canonicalPorts(p.Ports))
}

// SameNamespace says whether a namespace with these labels changes no pod's identity: it has them already, or no pod.
func (t *Table) SameNamespace(n Namespace) bool {
	s := t.spaces[n.Name]
	return s == nil || s.known && slices.Equal(s.labels, n.LabelSet()) || len(s.entries) == 0
}

// KnownNamespace is what the table holds of a namespace, and whether it knows it.
func (t *Table) KnownNamespace(name string) (Namespace, bool) {
	s := t.spaces[name]
	if s == nil || !s.known {
		return Namespace{}, false
	}
	return Namespace{Name: name, Labels: s.labels.Map()}, true
}
