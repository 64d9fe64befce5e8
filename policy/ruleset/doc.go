// Package ruleset makes a node's nftables ruleset of policies, identities and the pods attached to the node.
//
// Input: pods, namespaces, policies, attachments and the nodes' address ranges, at once (Compile) or event by event
// (Compiler). Output: a Ruleset, that is the whole table as a value in a small rule language, or a Transaction, the
// difference between two. Both print as text that the nft tool loads.
//
// Invariants: the order of events does not change the ruleset; no change, an empty Transaction; for every flow the
// ruleset gives the verdict of policy.Decide (package walk holds it to that); an attachment is not opened before its
// pod's chains are there. A pod with a known identity costs one element.
//
// Out of scope: the kernel (policy/nft).
package ruleset
