package main

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/cmd/kith/manifest"
	"github.com/kithnet/kith/policy/matrix"
)

const selectorHelp = "`pods`: NS, NS/NAME (* stands for any text), LABELS, NS/LABELS, or an address; may be given again, or with commas"

// selectorList is a flag of selectors.
type selectorList []string

func (l *selectorList) String() string { return strings.Join(*l, " ") }

// Set adds selectors: with commas between them, where they are no label selectors that need a comma.
func (l *selectorList) Set(s string) error {
	if strings.ContainsAny(s, "=!() ") {
		*l = append(*l, s)
		return nil
	}
	for _, part := range strings.Split(s, ",") {
		if part == "" {
			return fmt.Errorf("%q has an empty part", s)
		}
		*l = append(*l, part)
	}
	return nil
}

// ends are the ends that one of the selectors selects, all pods without any.
func (l selectorList) ends(found manifest.Manifests) ([]matrix.End, error) {
	if len(l) == 0 {
		return found.Ends, nil
	}
	var out []matrix.End
	seen := map[string]bool{}
	for _, text := range l {
		selected, err := selectEnds(text, found)
		if err != nil {
			return nil, err
		}
		for _, e := range selected {
			if !seen[e.Name] {
				seen[e.Name] = true
				out = append(out, e)
			}
		}
	}
	return out, nil
}

func selectEnds(text string, found manifest.Manifests) ([]matrix.End, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		e, err := endAt(a.Unmap(), found)
		return []matrix.End{e}, err
	}
	matches, err := parseSelector(text)
	if err != nil {
		return nil, err
	}
	var out []matrix.End
	for _, e := range found.Ends {
		if matches(e) {
			out = append(out, e)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	e, err := host(text, found)
	return []matrix.End{e}, err
}

// host is the pod of a name on its node's network.
func host(name string, found manifest.Manifests) (matrix.End, error) {
	for _, e := range found.Hosts {
		if e.Name == name && len(e.Addresses) == 0 {
			return e, fmt.Errorf("%s: is on its node's network, and the address of that is not in the manifests", name)
		} else if e.Name == name {
			return e, nil
		}
	}
	return matrix.End{}, fmt.Errorf("%s: no such pod in the manifests", name)
}

// endAt is the pod with an address, or the address alone. That of a Service is none that policies see: what they say of
// it would be wrong of the pods behind it.
func endAt(a netip.Addr, found manifest.Manifests) (matrix.End, error) {
	for _, e := range found.Ends {
		if slices.Contains(e.Addresses, a) || slices.Contains(e.Twin, a) {
			e.Addresses, e.Twin = []netip.Addr{a}, nil
			return e, nil
		}
	}
	for _, s := range found.Services {
		if slices.Contains(s.Addresses, a) && len(s.Pods) == 0 {
			return matrix.End{}, fmt.Errorf("%s: is Service %s's, whose pods are not in the manifests: policies look at pods", a, s.Name)
		} else if slices.Contains(s.Addresses, a) {
			return matrix.End{}, fmt.Errorf("%s: is Service %s's; policies look at the pods behind it, and their own ports: ask about %s", a, s.Name, few(s.Pods))
		}
	}
	return matrix.End{Name: a.String(), Addresses: []netip.Addr{a}}, nil
}

// parseSelector reads a selector of pods. A namespace's name has no dot, as the beginning of a label's key has, and a
// pod's no sign that a label selector needs.
func parseSelector(text string) (func(matrix.End) bool, error) {
	namespace, rest, slash := strings.Cut(text, "/")
	if strings.ContainsAny(namespace, ".=!,() ") {
		namespace, rest, slash = "*", text, true
	}
	inNamespace := glob(namespace)
	switch {
	case !slash:
		return func(e matrix.End) bool { return inNamespace(e.Namespace) }, nil
	case strings.ContainsAny(rest, "=!,() "):
		selector, err := labels.Parse(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		return func(e matrix.End) bool { return inNamespace(e.Namespace) && selector.Matches(labels.Set(e.Labels)) }, nil
	}
	matches := glob(text)
	return func(e matrix.End) bool { return matches(e.Name) }, nil
}

// glob matches texts in which * stands for any text.
func glob(pattern string) func(string) bool {
	if !strings.Contains(pattern, "*") {
		return func(s string) bool { return s == pattern }
	}
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString
}
