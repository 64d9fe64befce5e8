package main

import (
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/preshared"
)

// mail is gossip's way of carrying a message from one member to another.
type mail interface {
	Send(to string, message []byte)
	Received() <-chan []byte
}

// secrets agrees with each other node on a preshared key for each lane, while that is idle.
type secrets struct {
	log        *slog.Logger
	self       string
	mail       mail
	folder     disk.Folder
	agreements *preshared.Agreements

	kept    []disk.Secret
	usable  map[preshared.Pair]overlay.Preshared // those that are kept
	full    bool                                 // what was agreed on last could not be kept
	lacking map[preshared.Pair]time.Time         // since when
	doubted map[preshared.Pair]time.Time
}

// secretState says how two nodes stand with a lane's preshared key.
type secretState string

const (
	secretAgreed   secretState = "agreed"
	secretPending  secretState = "pending"
	secretDeclined secretState = "declined"
	secretOff      secretState = "off"
)

// A round takes so many messages and asks so many nodes at most.
const (
	mailAtOnce = 64
	asksAtOnce = 16
)

// Two nodes that lack a secret: the first name asks at once, the other after a while. One with which no handshake comes
// about is asked for anew.
const (
	secondAsks = 5 * time.Second
	doubtAfter = 30 * time.Second
)

func newSecrets(log *slog.Logger, self preshared.Self, folder disk.Folder, mail mail) *secrets {
	kept, err := folder.LoadSecrets()
	if err != nil {
		log.Warn("kept preshared keys are not used: they are agreed on anew", "error", err)
	}
	kept = slices.DeleteFunc(kept, func(s disk.Secret) bool { return len(s.Key) != len(overlay.Preshared{}) })
	var all []preshared.Secret
	for _, s := range kept {
		all = append(all, preshared.Secret{
			Pair: preshared.Pair{Own: s.Own, Other: s.Other}, Key: overlay.Preshared(s.Key), Number: s.Number,
		})
	}
	s := &secrets{
		log: log, self: self.Name, mail: mail, folder: folder, agreements: preshared.New(self, all),
	}
	s.use(kept)
	return s
}

// use lets what is on disk go into the device, and nothing else: a restart must not forget what the other end uses.
func (s *secrets) use(kept []disk.Secret) {
	s.kept, s.usable = kept, make(map[preshared.Pair]overlay.Preshared, len(kept))
	for _, k := range kept {
		s.usable[preshared.Pair{Own: k.Own, Other: k.Other}] = overlay.Preshared(k.Key)
	}
}

// step takes what has come, asks for what lacks, and keeps what is agreed on before it goes into the device. While that
// cannot be kept, it agrees on nothing more.
func (s *secrets) step(now time.Time, others []other, letters [][]byte) error {
	parties := make(map[string]preshared.Other, len(others))
	all := make([]preshared.Other, 0, len(others))
	for _, o := range others {
		parties[o.Name] = o.party
		all = append(all, o.party)
	}
	s.agreements.Retain(all)
	if s.full {
		if err := s.keep(); err != nil {
			return err
		}
	}
	s.hear(letters, parties, now)
	lacking, doubted := s.lacking, s.doubted
	s.lacking, s.doubted = map[preshared.Pair]time.Time{}, map[preshared.Pair]time.Time{}
	asks := asksAtOnce
	for _, o := range others {
		for lane := range overlay.Lanes {
			pair := preshared.Pair{Own: o.party.Own[lane], Other: o.party.Keys[lane]}
			if s.doubts(o, lane) && since(doubted, s.doubted, pair, now) >= doubtAfter {
				s.log.Warn("no handshake with the preshared key: another is agreed on", "node", o.Name, "lane", lane)
				s.agreements.Drop(o.party, lane)
			}
			if !s.lacks(o, lane) {
				continue
			}
			patient := since(lacking, s.lacking, pair, now) >= secondAsks
			if asks > 0 && (s.self < o.Name || patient) && !o.party.InUse[lane] && !s.agreements.Asked(o.party, lane, now) {
				asks--
				if err := s.ask(o.party, lane, now); err != nil {
					return err
				}
			}
		}
	}
	return s.keep()
}

// since is for how long something has been so, given when it was so before; it is noted for the next time.
func since(before, next map[preshared.Pair]time.Time, pair preshared.Pair, now time.Time) time.Duration {
	start, ok := before[pair]
	if !ok {
		start = now
	}
	next[pair] = start
	return now.Sub(start)
}

func (s *secrets) hear(letters [][]byte, parties map[string]preshared.Other, now time.Time) {
	for _, text := range letters {
		from, err := preshared.Sender(text)
		if err == nil {
			var reply []byte
			if reply, err = s.agreements.Hear(text, parties[from], now); reply != nil {
				s.mail.Send(from, reply)
			}
		}
		if err != nil {
			s.log.Debug("message about a preshared key refused", "from", from, "reason", err)
		}
	}
}

// lacks says that a lane to a living node needs a secret. While their generations differ, one end is about to give the
// lane of the later one new keys.
func (s *secrets) lacks(o other, lane int) bool {
	ends := o.own != o.claim.Generation && lane != int(min(o.own, o.claim.Generation)%overlay.Lanes)
	return o.alive && !ends && !o.party.Keys[lane].IsZero() && !s.agreements.Settled(o.party, lane)
}

// doubts says that a secret is in the device and brings no handshake: the other end may have another.
func (s *secrets) doubts(o other, lane int) bool {
	key := s.key(o, lane)
	return o.alive && !key.IsZero() && o.have[lane] == key && !o.fresh[lane]
}

func (s *secrets) ask(p preshared.Other, lane int, now time.Time) error {
	message, err := s.agreements.Ask(p, lane, now)
	if err == nil && message != nil {
		s.mail.Send(p.Name, message)
	}
	return err
}

// keep writes what has changed.
func (s *secrets) keep() error {
	var all []disk.Secret
	for _, k := range s.agreements.Secrets() {
		all = append(all, disk.Secret{Own: k.Own, Other: k.Other, Key: k.Key[:], Number: k.Number})
	}
	if reflect.DeepEqual(all, s.kept) {
		s.full = false
		return nil
	}
	err := s.folder.SaveSecrets(all)
	s.full = err != nil
	if err == nil {
		s.use(all)
	}
	return err
}

// key is what the device may have.
func (s *secrets) key(o other, lane int) overlay.Preshared {
	return s.usable[preshared.Pair{Own: o.party.Own[lane], Other: o.party.Keys[lane]}]
}

func (s *secrets) keys(o other) (out [overlay.Lanes]overlay.Preshared) {
	for lane := range out {
		out[lane] = s.key(o, lane)
	}
	return out
}

// shook is when a lane to another node last proved to carry.
func (s *secrets) shook(o other, lane int, now time.Time) time.Time {
	// What was agreed on just now is not in the device yet: its handshake is of what was before.
	if o.have[lane] != s.key(o, lane) || s.agreements.Asked(o.party, lane, now) {
		return time.Time{}
	}
	// So is one before the other end asked for a secret, as it does when it has none, its Node made anew or its disk lost.
	if !o.shook[lane].After(s.agreements.Wanted(o.party, lane)) {
		return time.Time{}
	}
	return o.shook[lane]
}

// settled says that the device may have what was agreed on.
func (s *secrets) settled(o other, lane int) bool {
	return s.agreements.Settled(o.party, lane) && s.agreements.Key(o.party, lane) == s.key(o, lane)
}

// open says that there is something to agree on.
func (s *secrets) open(others []other) bool {
	for _, o := range others {
		for lane := range overlay.Lanes {
			if s.lacks(o, lane) || s.doubts(o, lane) {
				return true
			}
		}
	}
	return false
}

func (s *secrets) states(o other) (out [overlay.Lanes]secretState) {
	for lane := range out {
		switch {
		case !s.key(o, lane).IsZero():
			out[lane] = secretAgreed
		case s.agreements.Declined(o.party, lane):
			out[lane] = secretDeclined
		case s.settled(o, lane):
			out[lane] = secretOff
		default:
			out[lane] = secretPending
		}
	}
	return out
}
