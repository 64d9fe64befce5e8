package main

import (
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"

	"github.com/kithnet/kith/policy/dns/tap"
)

// nameServersChanged has the answers heard of those name servers that pods are to ask.
func (a *agent) nameServersChanged() {
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		a.log.Warn("the node's name servers not found: names are not learned from them", "error", err)
	}
	cluster, known := a.servers.Addresses()
	heard := whoIsHeard(cluster, slices.Concat(a.cfg.Policy.NameServers, nameServers(string(text))))
	heard.AnyServer = heard.AnyServer && len(a.cfg.Policy.NameServers) == 0 || !known
	if known && !reflect.DeepEqual(heard, a.heard) {
		sayWhoIsHeard(a.log, heard)
		a.heard = heard
	}
	a.learner.trust(heard)
}

// whoIsHeard adds other servers to the cluster's own. Where the cluster's are not known, each may be one of them.
func whoIsHeard(cluster, others []netip.Addr) tap.Audience {
	all := slices.Concat(cluster, others)
	slices.SortFunc(all, netip.Addr.Compare)
	return tap.Audience{Servers: slices.Compact(all), AnyServer: len(cluster) == 0}
}

func sayWhoIsHeard(log *slog.Logger, heard tap.Audience) {
	if heard.AnyServer {
		log.Warn("no Service with the label k8s-app=kube-dns in kube-system: names are learned from whatever server pods ask; list yours as policy.nameServers")
		return
	}
	log.Info("names are learned from these name servers, and from 169.254.0.0/16", "servers", heard.Servers)
}
