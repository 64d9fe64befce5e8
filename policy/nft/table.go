package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// defaultBatch is how much goes into one atomic batch: some 50,000 addresses, or 250 chains' rules.
const defaultBatch = 2 << 20

// Table is the table inet kith of one network namespace. One goroutine may use it at a time; Watch runs beside it.
type Table struct {
	conn   *nftables.Conn // makes the messages that socket sends
	kernel *nftables.Table
	socket *socket // all that is written goes by it, since it owns the table
	reader *socket
	events *socket
	pupil  *Pupil
	limit  int
	// sets are the sets that the kernel has; nil when that is not known.
	sets map[string]ruleset.SetSpec
	// replace says that the table must go before anything can hold in it.
	replace bool
}

// Option changes how a Table is opened.
type Option func(*options)

type options struct {
	namespace int
	limit     int
	shared    bool
}

// Shared leaves the table to everybody, as kernels do that know no owners: for tests of what others change.
func Shared() Option { return func(o *options) { o.shared = true } }

// InNamespace works in the network namespace of an open file instead of the process's own.
func InNamespace(fd int) Option { return func(o *options) { o.namespace = fd } }

// BatchLimit sets after how many bytes of messages, about, a transaction is cut into several batches.
func BatchLimit(bytes int) Option { return func(o *options) { o.limit = bytes } }

// Open connects to the kernel. Changes that others make from now on are what Watch tells.
func Open(opts ...Option) (*Table, error) {
	o := options{limit: defaultBatch}
	for _, opt := range opts {
		opt(&o)
	}
	t := &Table{limit: o.limit, kernel: &nftables.Table{Name: ruleset.Table, Family: nftables.TableFamilyINet}}
	if err := t.open(o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Table) open(o options) (err error) {
	for _, s := range []**socket{&t.socket, &t.reader, &t.events} {
		if *s, err = dial(o.namespace); err != nil {
			return err
		}
	}
	if err := listen(t.events, t.socket.port); err != nil {
		return fmt.Errorf("listen for changes of tables: %w", err)
	}
	if !o.shared {
		if err := t.socket.canOwn(); err != nil {
			return fmt.Errorf("try a table that has an owner: %w", err)
		}
	}
	t.pupil = &Pupil{socket: t.socket, table: t.kernel}
	t.pupil.conn, err = encoder(t.socket)
	return errors.Join(err, t.encode())
}

// Pupil is who puts into the table's sets what pods are told. It runs beside the Table, until that is closed.
func (t *Table) Pupil() *Pupil { return t.pupil }

// Close ends the connection and Watch. The table stays.
func (t *Table) Close() error {
	var errs []error
	for _, s := range []*socket{t.socket, t.reader, t.events} {
		if s != nil {
			errs = append(errs, s.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// Owns says whether the table is this process's alone, as far as is known: not where the kernel has no such tables (before
// Linux 6.9), nor where the table was made by a process that did without.
func (t *Table) Owns() bool { return t.socket.owns() }

// Read gives the table as the kernel has it. No table, or one that is switched off, is an empty ruleset. A table whose owner
// has ended is taken over; that of another is ErrOwned.
func (t *Table) Read(ctx context.Context) (ruleset.Ruleset, error) {
	t.sets, t.replace = nil, false
	have := ruleset.Ruleset{Sets: map[string]*ruleset.Set{}, Chains: map[string]*ruleset.Chain{}}
	enforced, err := t.readTable()
	if err != nil {
		return ruleset.Ruleset{}, fmt.Errorf("read table %s: %w", ruleset.Table, err)
	}
	if !enforced {
		t.sets = map[string]ruleset.SetSpec{}
		return have, nil
	}
	specs, err := t.readSets(ctx, have)
	if err != nil {
		return ruleset.Ruleset{}, fmt.Errorf("read table %s: %w", ruleset.Table, err)
	}
	if err := t.readChains(have, specs); err != nil {
		return ruleset.Ruleset{}, fmt.Errorf("read table %s: %w", ruleset.Table, err)
	}
	t.sets = specs
	return have, nil
}

// readTable says whether there is a table that is switched on.
func (t *Table) readTable() (bool, error) {
	tables, err := t.reader.list(unix.NFT_MSG_GETTABLE, 0, named(unix.NFTA_TABLE_NAME, ruleset.Table))
	if errors.Is(err, unix.ENOENT) || err == nil && len(tables) == 0 {
		t.socket.absent()
		return false, nil
	}
	if err == nil {
		err = t.take(tables[0])
	}
	return !t.replace, err
}

func (t *Table) readSets(ctx context.Context, have ruleset.Ruleset) (map[string]ruleset.SetSpec, error) {
	sets, err := t.reader.dump(unix.NFT_MSG_GETSET, named(unix.NFTA_SET_TABLE, ruleset.Table))
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	specs := make(map[string]ruleset.SetSpec, len(sets))
	for _, b := range sets {
		set := parseSet(b)
		if set.table != ruleset.Table || set.anonymous {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		elements, err := t.readElements(set.spec)
		if err != nil {
			return nil, fmt.Errorf("list elements of %s: %w", set.spec.Name, err)
		}
		if slices.ContainsFunc(elements, func(e shownElement) bool { return e.all }) {
			set.spec, elements = ruleset.SetSpec{Name: set.spec.Name}, nil // the language cannot say it, nor delete it
		}
		specs[set.spec.Name] = set.spec
		have.Sets[set.spec.Name] = &ruleset.Set{SetSpec: set.spec, Elements: elementsOf(set.spec, elements)}
	}
	return specs, nil
}

func (t *Table) readElements(spec ruleset.SetSpec) ([]shownElement, error) {
	if len(spec.Key) == 0 || spec.Learned {
		return nil, nil
	}
	lists, err := t.reader.dump(unix.NFT_MSG_GETSETELEM,
		named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.Table), named(unix.NFTA_SET_ELEM_LIST_SET, spec.Name))
	if err != nil {
		return nil, err
	}
	var elements []shownElement
	for _, b := range lists {
		elements = append(elements, parseElements(spec, b)...)
	}
	return elements, nil
}

func (t *Table) readChains(have ruleset.Ruleset, specs map[string]ruleset.SetSpec) error {
	chains, err := t.reader.dump(unix.NFT_MSG_GETCHAIN, named(unix.NFTA_CHAIN_TABLE, ruleset.Table))
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, b := range chains {
		if table, c := parseChain(b); table == ruleset.Table {
			have.Chains[c.Name] = &ruleset.Chain{ChainSpec: c}
		}
	}
	rules, err := t.reader.dump(unix.NFT_MSG_GETRULE, named(unix.NFTA_RULE_TABLE, ruleset.Table))
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for _, b := range rules {
		name, rule := parseRule(b, specs)
		if c, ok := have.Chains[name]; ok {
			c.Rules = append(c.Rules, rule)
		}
	}
	return nil
}

func named(typ uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: []byte(name + "\x00")}
}
