package probetest

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what an animal does, so that it ends by itself.
const (
	muchTime  = 30 * time.Second
	muchBytes = 64 << 20
)

// hostile is an animal that does something with each connection.
func hostile(name string, spec func(netip.AddrPort) *pb.Spec, want pb.Failure, handle func(net.Conn)) Animal {
	return Animal{
		Name: name, Spec: spec, Want: want,
		Listen: func(at netip.AddrPort) (Server, error) { return serve(at, handle) },
	}
}

// after reads what the other end says first, then does the rest.
func after(then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 8192))
		then(c)
	}
}

// saying writes a text and then waits for the other end.
func saying(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.WriteString(c, text); err == nil {
			drain(c)
		}
	}
}

// repeating writes a head, and then a text again and again.
func repeating(head, text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.WriteString(c, head); err != nil {
			return
		}
		many := []byte(strings.Repeat(text, max(1, 4096/len(text))))
		for sent := 0; sent < muchBytes; sent += len(many) {
			if _, err := c.Write(many); err != nil {
				return
			}
		}
		drain(c)
	}
}

// dripping writes a head, and then a text a byte at a time, ten of them a second, again and again.
func dripping(head, text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.WriteString(c, head); err != nil {
			return
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range int(muchTime / (100 * time.Millisecond)) {
			<-tick.C
			if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
		}
	}
}

// resetting writes a text and resets.
func resetting(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		reset(c)
	}
}

// tcpHouse is what meets a connect.
func tcpHouse() []Animal {
	none := pb.Failure_FAILURE_NONE
	return []Animal{
		hostile("TCP: a banner without end", connected, none, repeating("", "welcome ")),
		hostile("TCP: a banner a byte at a time", connected, none, dripping("", "welcome ")),
		hostile("TCP: a banner of escapes", connected, none, saying("\x1b]0;owned\x07\x1b[2J\xff\xfe\u202e")),
		hostile("TCP: a reset at once", connected, pb.Failure_FAILURE_TCP_RESET, reset),
		hostile("TCP: an end at once", connected, pb.Failure_FAILURE_TCP_CLOSED_EARLY, func(net.Conn) {}),
	}
}
