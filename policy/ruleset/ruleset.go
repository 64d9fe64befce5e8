package ruleset

// Table is the name of the one table, of family inet, that Kith owns whole.
const Table = "kith"

// Ruleset is everything in the table: what the agent wants there, or what it read there.
type Ruleset struct {
	Sets   map[string]*Set
	Chains map[string]*Chain
}

// SetSpec is a set or map without its elements. Data is TypeNone for a set.
type SetSpec struct {
	Name     string
	Key      []Type
	Data     Type // TypeNone, TypeVerdict or TypeClassID
	Interval bool
	Learned  bool // elements come by answers and packets and end by time: no ruleset has them
}

// Set is a set or map with its elements.
type Set struct {
	SetSpec
	Elements map[Key]Value
}

// Key is an element's key as the kernel holds it: the fields in network byte order, each padded to a multiple of
// four bytes when the key is a concatenation. In an interval set it runs from Low to High, both included, field by
// field; in others High is empty. The bytes are a string so that keys compare and index.
type Key struct{ Low, High string }

// Value is an element's data: a verdict, a priority, or nothing.
type Value struct {
	Verdict  Verdict
	Priority uint32
}

// ChainSpec is a chain without its rules. Hook is nil for a chain that only others reach.
type ChainSpec struct {
	Name string
	Hook *Hook
}

// Hook says where the kernel enters a base chain. Policy of all our base chains is accept: a rule drops.
type Hook struct {
	Type     string // "filter" or "nat"
	Name     string // "prerouting", "input", "forward", "output" or "postrouting"
	Priority int32
}

// Chain is a chain with its rules, in order.
type Chain struct {
	ChainSpec
	Rules []Rule
}

// Rule is expressions evaluated left to right until one does not match. Comment, at most 127 bytes, is for readers.
type Rule struct {
	Exprs   []Expr
	Comment string
}

// Transaction is the difference between two rulesets, in the order in which the kernel can take it. Everything in
// it becomes visible at once when it is small enough for one batch. If it must be cut, the edge keeps this order:
// the parts that only tighten come first, and the elements that open attachments come last.
//
// Replace says that the table as it is must go first, in the same batch as far as one batch holds it: something in it
// has our name and another kind (an upgrade, somebody's hand). The rest is then the whole ruleset.
type Transaction struct {
	Replace        bool
	AddSets        []SetSpec
	AddChains      []ChainSpec
	DeleteElements []ElementChange
	AddElements    []ElementChange
	SetRules       []Chain // the whole new contents of each chain that changes
	DeleteChains   []string
	DeleteSets     []string
}

// ElementChange is one element added to or deleted from a set. To change an element's data, delete it and add it.
type ElementChange struct {
	Set   string
	Key   Key
	Value Value
}

// Empty says that there is nothing to write.
func (t Transaction) Empty() bool {
	return t.Size() == 0
}

// Size is how many objects the transaction writes: sets, chains and elements.
func (t Transaction) Size() int {
	return len(t.AddSets) + len(t.AddChains) + len(t.DeleteElements) + len(t.AddElements) + len(t.SetRules) +
		len(t.DeleteChains) + len(t.DeleteSets)
}
