package identity

import (
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate()
		g.turns = make(chan struct{}, 1)
		there, left := func() bool { return false }, func() bool { return true }
		began := time.Now()
		if _, err := g.enter(there); !errors.Is(err, errQueue) || time.Since(began) != maxQueue {
			t.Errorf("through a gate that is not open yet: %v after %v", err, time.Since(began))
		}
		g.Open()
		leave, err := g.enter(there)
		if err != nil {
			t.Fatal(err)
		}
		came := make(chan int, 3)
		for n := range 3 {
			go func() {
				leave, err := g.enter(there)
				if err == nil {
					defer leave()
				}
				came <- n
			}()
			synctest.Wait() // it stands in line before the next one comes
		}
		if len(came) != 0 {
			t.Errorf("%d came in beside one that is there", len(came))
		}
		leave()
		leave() // at the end of its time it would leave again
		for n := range 3 {
			if got := <-came; got != n {
				t.Errorf("number %d came, in place of %d", got, n)
			}
		}

		if _, err = g.enter(there); err != nil { // it never leaves
			t.Fatal(err)
		}
		began = time.Now()
		if _, err := g.enter(there); err != nil || time.Since(began) != slowShake {
			t.Errorf("after one that never leaves: %v, after %v", err, time.Since(began))
		}
		if _, err := g.enter(left); !errors.Is(err, errGone) {
			t.Errorf("in line, of a client that has left: %v", err)
		}
		time.Sleep(slowShake)
		if synctest.Wait(); len(g.turns) != 0 {
			t.Errorf("%d turns are taken, and nobody is there", len(g.turns))
		}
		g.Close()
		if _, err := g.enter(there); !errors.Is(err, errShut) {
			t.Errorf("through a gate that is shut: %v", err)
		}
	})
}

// TestGateOfServers shakes hands through a gate: that opens while somebody waits, and that shuts.
func TestGateOfServers(t *testing.T) {
	c := newClock()
	a := open(t, c)
	agent := enrol(t, a, "fra-1", c)
	g := NewGate()
	g.turns = make(chan struct{}, 1)
	server := g.Guard(a.AgentsTLS("main", nil))

	left, right := connected(t)
	result := make(chan error, 2)
	go func() { result <- tls.Server(left, server).Handshake() }()
	go func() { result <- tls.Client(right, agent.ClientTLS()).Handshake() }()
	g.Open()
	for range 2 {
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // there is one turn: it is given back
		if seen, serverErr, clientErr := shake(t, server, agent.ClientTLS()); serverErr != nil || clientErr != nil || len(seen.PeerCertificates) == 0 {
			t.Errorf("an agent: %v, %v", serverErr, clientErr)
		}
		if _, err, _ := shake(t, server, PinnedTLS(a.Pin(), c.now)); err == nil {
			t.Error("who shows no certificate was let in")
		}
	}
	g.Close()
	left, right = connected(t)
	go func() { result <- tls.Server(left, server).Handshake() }()
	if err := tls.Client(right, agent.ClientTLS()).Handshake(); !errors.Is(err, io.EOF) {
		t.Errorf("the client of a server that stops hears %v", err)
	}
	if err := <-result; !errors.Is(err, errShut) {
		t.Errorf("%v", err)
	}
}

func TestWhoHasLeft(t *testing.T) {
	left, right := connected(t)
	if gone(left) {
		t.Error("a client that says nothing has not left")
	}
	if _, err := right.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(left, make([]byte, 4)); err != nil { // the last byte is still to be read
		t.Fatal(err)
	}
	if gone(left) {
		t.Error("what was not read is no end")
	}
	_, _ = io.ReadFull(left, make([]byte, 1))
	_ = right.Close()
	for deadline := time.Now().Add(30 * time.Second); !gone(left); {
		if time.Now().After(deadline) {
			t.Fatal("nobody saw that the client left")
		}
		runtime.Gosched()
	}
	_ = left.Close()
	if !gone(left) {
		t.Error("a connection that was closed here is none")
	}
}
