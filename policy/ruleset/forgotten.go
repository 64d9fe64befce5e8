package ruleset

// forgottenChains judge what belongs to no connection that could be judged: nobody knows who opened it. A pod that a
// policy selects neither sends nor receives it.
//
// A TCP segment that would make a connection, and does not open one, is of a connection that the kernel's table has lost. Its
// sender hears of it by a reset, if the kernel has those, and does not wait for ever (RFC 9293 §3.10.7.1). What the kernel
// calls invalid may be of a connection that is open, such as a segment that comes late: a reset would end that.
func forgottenChains(n Network) []Chain {
	neighbours := []Rule{accept(ICMPType{58, icmp6NeighborSolicitation}), accept(ICMPType{58, icmp6NeighborAdvertisement})}
	return []Chain{
		{ChainSpec{unjudged, nil}, append(neighbours, ends(drop, setBound4, setBound6)...)},
		{ChainSpec{closed, nil}, ends(drop, setSubjects4, setSubjects6)},
		{ChainSpec{lostOwn, nil}, ends(n.end, setBound4, setBound6)},
		{ChainSpec{lost, nil}, ends(n.end, setSubjects4, setSubjects6)},
	}
}

// end drops, and tells the sender if it can.
func (n Network) end(es ...Expr) Rule {
	if !n.Resets {
		return drop(es...)
	}
	return rule(append(append([]Expr{Protocol{6}}, es...), Counter{}, Reset{})...)
}

// ends are rules for what is from or to an address of the sets.
func ends(act func(...Expr) Rule, set4, set6 string) []Rule {
	return []Rule{
		act(isIn(set4, IPSource)), act(isIn(set4, IPDestination)),
		act(isIn(set6, IP6Source)), act(isIn(set6, IP6Destination)),
	}
}
