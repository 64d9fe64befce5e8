package nft

import "github.com/kithnet/kith/policy/ruleset"

// About how many bytes of messages things take. A batch must be cut before it fills the socket's buffer, which leaves
// room for error. A list of elements must be cut before it is longer than the 16 bits of its length can say, which the
// library does not look at: an element's size is therefore never too small.
const (
	sizeOfSet      = 400
	sizeOfChain    = 200
	sizeOfDeletion = 120
	sizeOfRule     = 100
	sizeOfExpr     = 160
	maxList        = 60000
)

func sizeOf(tx ruleset.Transaction) int {
	n := sizeOfSet*len(tx.AddSets) + sizeOfChain*len(tx.AddChains) + sizeOfDeletion*(2*len(tx.DeleteChains)+len(tx.DeleteSets))
	for _, c := range tx.SetRules {
		n += sizeOfRules(c)
	}
	for _, e := range tx.AddElements {
		n += sizeOfElement(e)
	}
	for _, e := range tx.DeleteElements {
		n += sizeOfElement(e)
	}
	return n
}

func sizeOfRules(c ruleset.Chain) int {
	n := sizeOfDeletion
	for _, rule := range c.Rules {
		n += sizeOfRule + sizeOfExpr*len(rule.Exprs)
	}
	return n
}

// sizeOfElement counts the headers of an element, its key, its data and what each is padded with.
func sizeOfElement(e ruleset.ElementChange) int {
	const key, end, verdict = 28, 24, 24
	n := key + len(e.Key.Low)
	if e.Key.High != "" {
		n += end + len(e.Key.High)
	}
	if e.Value.Verdict.Chain != "" {
		n += verdict + len(e.Value.Verdict.Chain)
	}
	return n
}
