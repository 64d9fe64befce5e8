// Command flows keeps connections open between pods and tells what became of them.
//
//	flows serve ADDRESS                 echo what TCP connections say; name each source of TCP or UDP traffic once
//	flows hold COUNT ADDRESS...         keep COUNT connections to each address busy
//	flows probe ADDRESS...              try again and again to connect, and send datagrams, to each address
//
// hold and probe print one line of JSON a second, so that the last line of a pod's log is its state.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flows:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: flows serve ADDRESS | hold COUNT ADDRESS... | probe ADDRESS...")
	}
	switch args[0] {
	case "serve":
		return serve(args[1])
	case "hold":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return hold(count, args[2:])
	case "probe":
		return probe(args[1:])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// serve prints "from ADDRESS" when a source is heard for the first time.
func serve(address string) error {
	var known sync.Map
	heard := func(from string) {
		host, _, _ := net.SplitHostPort(from)
		if _, old := known.LoadOrStore(host, true); !old {
			fmt.Println("from", host)
		}
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, from, err := packets.ReadFrom(buf); err == nil {
				heard(from.String())
			}
		}
	}()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		heard(conn.RemoteAddr().String())
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

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
