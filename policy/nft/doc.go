// Package nft keeps the one nftables table that the kernel enforces policy with.
//
// It models the table inet kith as the agent's own: what Read returns is the table as the kernel has it, in the
// language of package ruleset, so that ruleset.Diff can tell what is missing; Apply writes such a difference; Watch
// tells when somebody else has changed the table.
//
// Input is a ruleset.Transaction, output a ruleset.Ruleset. What must hold:
//
//   - Read(Apply(x)) equals x, rule for rule and element for element. What the language cannot say (somebody's hand
//     in our table) is read as a rule, set or chain that equals nothing the compiler makes, so the next difference
//     removes it.
//   - A transaction that fits one batch becomes visible at once or not at all. One that does not is cut in the order
//     that fails closed (see order.go).
//   - An error names the set, chain or element at fault. After an error the caller reads and diffs again: of a cut
//     transaction some batches may already be in the kernel.
//   - What is written prints with `nft list ruleset` and loads again from that print, but for the table's flags: it belongs
//     to this process where the kernel knows owners (see owner.go).
//
// Writing goes through google/nftables: it makes the messages of rules (expr.*), chains, sets and elements. A socket
// of ours delivers them, since v0.3.0 asks for an answer to every message, of which a few thousand overrun a socket,
// does not say which message was refused, and cannot write two things that we need (see putright.go).
//
// Reading decodes the kernel's listings here, into the library's expressions: the library's own reader loses byte
// order conversions, the directions of connection keys and the key types of verdict maps, without which a rule cannot
// be told from its neighbour, and does not notice when somebody's change interrupts a listing.
//
// Out of scope: deciding what belongs in the table (package ruleset), and any table but this one. Stateful objects
// and flowtables that somebody puts into our table are left alone: they do nothing until a rule names them, and
// that rule is a difference.
package nft
