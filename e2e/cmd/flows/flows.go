package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// state is what hold and probe print.
type state struct {
	mu        sync.Mutex
	Open      int      `json:"open"`      // connections that are up now
	Echoes    int      `json:"echoes"`    // messages that came back
	Broken    int      `json:"broken"`    // connections that ended
	LongestMS int64    `json:"longestMS"` // the longest wait for an echo
	Attempts  int      `json:"attempts"`  // of probe
	Reached   int      `json:"reached"`   // attempts of probe that connected
	Errors    []string `json:"errors,omitempty"`
}

func (s *state) change(f func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *state) report() {
	for range time.Tick(time.Second) {
		s.change(func(s *state) { json.NewEncoder(os.Stdout).Encode(s) })
	}
}

func hold(count int, addresses []string) error {
	s := &state{}
	for _, a := range addresses {
		for range count {
			go s.hold(a)
		}
	}
	s.report()
	return nil
}

// hold connects once, patiently, and then never again: a connection that ends stays ended.
func (s *state) hold(address string) {
	var conn net.Conn
	for {
		var err error
		if conn, err = net.DialTimeout("tcp", address, 2*time.Second); err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.change(func(s *state) { s.Open++ })
	err := s.echo(conn)
	s.change(func(s *state) { s.Open--; s.Broken++; s.Errors = append(s.Errors, address+": "+err.Error()) })
}

func (s *state) echo(conn net.Conn) error {
	message, back := []byte("still here"), make([]byte, 10)
	for {
		began := time.Now()
		if _, err := conn.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, back); err != nil {
			return err
		}
		wait := time.Since(began).Milliseconds()
		s.change(func(s *state) { s.Echoes++; s.LongestMS = max(s.LongestMS, wait) })
		time.Sleep(50 * time.Millisecond)
	}
}

func probe(addresses []string) error {
	s := &state{}
	for _, a := range addresses {
		go s.probeTCP(a)
		go probeUDP(a)
	}
	s.report()
	return nil
}

func (s *state) probeTCP(address string) {
	for {
		conn, err := net.DialTimeout("tcp", address, 250*time.Millisecond)
		s.change(func(s *state) { s.Attempts++ })
		if err == nil {
			conn.Close()
			s.change(func(s *state) { s.Reached++; s.Errors = append(s.Errors, "connected to "+address) })
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// probeUDP uses a new source port for each datagram: none may pass as part of an older flow.
func probeUDP(address string) {
	for {
		if conn, err := net.Dial("udp", address); err == nil {
			conn.Write([]byte("denied"))
			conn.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
}
