package ruleset

import "net/netip"

// addrRange is addresses of one family, both ends included.
type addrRange struct{ from, to netip.Addr }
