// Command agnhost stands before upstream's program of that name, and serves and connects to SCTP ports itself where the
// kernel has no SCTP sockets: by packets, up to the first answer. Everything else it leaves to /agnhost-upstream.
//
//	agnhost porter                                            with SERVE_SCTP_PORT_N set: serve port N
//	agnhost connect --protocol=sctp --timeout=D ADDRESS:PORT  say whether it answers, in upstream's words
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const upstream = "/agnhost-upstream"

func main() {
	if err := run(os.Args[1:]); err != nil {
		// The specs read exactly this word.
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP); err == nil {
		unix.Close(fd)
		return unix.Exec(upstream, os.Args, os.Environ())
	}
	if len(args) > 0 && args[0] == "porter" {
		for _, e := range os.Environ() {
			if text, ok := strings.CutPrefix(e, "SERVE_SCTP_PORT_"); ok {
				text, _, _ = strings.Cut(text, "=")
				port, err := strconv.ParseUint(text, 10, 16)
				if err != nil {
					return err
				}
				return serve(uint16(port))
			}
		}
	}
	if len(args) > 1 && args[0] == "connect" {
		flags := flag.NewFlagSet("connect", flag.ContinueOnError)
		protocol := flags.String("protocol", "tcp", "")
		timeout := flags.Duration("timeout", time.Second, "")
		if flags.Parse(args[1:]) == nil && *protocol == "sctp" {
			to, err := netip.ParseAddrPort(flags.Arg(0))
			if err != nil {
				return err
			}
			return connect(to, *timeout)
		}
	}
	return unix.Exec(upstream, os.Args, os.Environ())
}

// serve answers every INIT to a port.
func serve(port uint16) error {
	errs := make(chan error, 2)
	for _, network := range []string{"ip4:132", "ip6:132"} {
		go func() { errs <- answer(network, port) }()
	}
	return errors.Join(<-errs, <-errs)
}

func answer(network string, port uint16) error {
	conn, err := net.ListenPacket(network, "")
	if err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if p, ok := parse(buf[:n]); ok && p.chunk == chunkInit && p.to == port {
			_, err = conn.WriteTo(packet{from: port, to: p.from, verification: p.tag, chunk: chunkInitAck, tag: 2}.bytes(), from)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "answer:", err)
		}
	}
}

// connect returns nil when an INIT is answered in time.
func connect(to netip.AddrPort, timeout time.Duration) error {
	network := "ip4:132"
	if to.Addr().Is6() {
		network = "ip6:132"
	}
	conn, err := net.DialIP(network, nil, &net.IPAddr{IP: to.Addr().AsSlice(), Zone: to.Addr().Zone()})
	if err != nil {
		return err
	}
	defer conn.Close()
	const retry = 300 * time.Millisecond
	own := uint16(20000 + os.Getpid()%20000)
	buf := make([]byte, 2048)
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		// An error is an ICMP answer to an earlier one, and no answer.
		_, _ = conn.Write(packet{from: own, to: to.Port(), chunk: chunkInit, tag: uint32(own)}.bytes())
		_ = conn.SetReadDeadline(time.Now().Add(retry))
		for {
			// Read would give the IPv4 header, too.
			n, _, err := conn.ReadFromIP(buf)
			if err != nil {
				break
			}
			if p, ok := parse(buf[:n]); ok && p.chunk == chunkInitAck && p.to == own && p.from == to.Port() {
				return nil
			}
		}
	}
	return errors.New("TIMEOUT")
}
