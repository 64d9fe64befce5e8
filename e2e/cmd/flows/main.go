// Command flows keeps connections open between pods and tells what became of them.
//
//	flows serve ADDRESS                 echo what TCP connections say; name each source of TCP or UDP traffic once
//	flows hold COUNT ADDRESS...         keep COUNT connections to each address busy
//	flows probe ADDRESS...              try again and again to connect, and send datagrams, to each address
//
// hold and probe print one line of JSON a second, so that the last line of a pod's log is its state.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flows:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: flows serve ADDRESS | hold COUNT ADDRESS... | probe ADDRESS (one or more)")
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
