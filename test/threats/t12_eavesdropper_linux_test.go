package threats

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/identity"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// wire keeps what it hears.
type wire struct {
	mu    sync.Mutex
	heard bytes.Buffer
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard.Write(b)
}

func (w *wire) has(marker string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.heard.Bytes(), []byte(marker))
}

// sniff hears every frame on an interface of the test's own namespace, until the test ends.
func sniff(t *testing.T, name string) *wire {
	t.Helper()
	const everything = 0x0300 // ETH_P_ALL, in network byte order
	link, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, everything)
	if err == nil {
		err = errors.Join(
			syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 64<<20),
			syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: everything, Ifindex: link.Index}))
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "packets")
	w := &wire{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		frame := make([]byte, 128<<10)
		for {
			n, err := socket.Read(frame)
			if err != nil {
				return
			}
			_, _ = w.Write(frame[:n]) // it is memory
		}
	}()
	t.Cleanup(func() {
		_ = socket.Close()
		<-done
	})
	return w
}

// TestT12NothingIsReadOnTheWire: somebody hears every frame between a coordinator and its agents and clients. Without TLS
// he reads the agent's name, its jobs and its results; with it, nothing.
func TestT12NothingIsReadOnTheWire(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld())
	const name, city, banner = "agent-of-the-marker", "city-of-the-marker", "banner-of-the-marker"
	said := serveBytes(t, "127.0.0.8:0", banner+"\r\n") // on no wire but the coordinator's
	w := &world{t: t, home: "world", grpc: coordinatorAddr + ":7700", nats: coordinatorAddr + ":7702"}
	dir := t.TempDir()
	for _, secure := range []bool{false, true} {
		w.insecure, w.data = !secure, ""
		if secure {
			w.nats = "0.0.0.0:7702" // agents are told no host, so that they take the one that is in between
		}
		coordinator := w.coordinate()
		var secrets []string
		if secure {
			secrets = append(secrets, w.secret())
		}
		heard := sniff(t, "near")
		agent := w.agentIn(filepath.Join(dir, fmt.Sprint(secure)), name, "--city", city, "--resolver", "203.0.113.1", "--root-server", "203.0.113.1", "--allow-target", "127.0.0.0/8", "--control", said.String())
		if secure {
			secrets = append(secrets, strings.Split(agent.argument("--join"), "_")[2])
		}
		w.online(1)
		eventually(t, "an answer", func(context.Context) error {
			out, err := w.cliIn("", "tcp", said.String(), "--timeout", "10s", "-J")
			if err == nil && !strings.Contains(out, name) {
				err = errors.New(out)
			}
			return err
		})
		for _, marker := range []string{name, city, banner, said.String(), "jobs.", "beats.", "MSG ", "INFO {", "CONNECT {", "PRI * HTTP/2.0"} {
			if heard.has(marker) == secure {
				t.Errorf("TLS %v: %q is on the wire: %v", secure, marker, heard.has(marker))
			}
		}
		for _, secret := range secrets {
			if heard.has(secret) {
				t.Error("a token is on the wire")
			}
		}
		agent.stop(t)
		if !secure {
			coordinator.stop(t)
		}
	}
	downgrade(t, w, filepath.Join(dir, "true"))
}

// secret is the secret part of the administrator's token.
func (w *world) secret() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.data, "admin.token"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "_")[2]
}

// argument is what a process was given by a flag.
func (p *process) argument(flag string) string {
	for i, a := range p.cmd.Args {
		if a == flag {
			return p.cmd.Args[i+1]
		}
	}
	return ""
}

// between is somebody between an agent and its coordinator. It keeps how each connection begins, as the agent said it.
type between struct {
	mu     sync.Mutex
	begins []string
}

func (b *between) came() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.begins...)
}

// listen has every connection begin with what is said by talk, which returns what it heard first.
func (b *between) listen(t *testing.T, addr string, talk func(net.Conn) string) {
	t.Helper()
	serve(t, addr, func(conn net.Conn) {
		heard := talk(conn)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.begins = append(b.begins, heard)
	})
}

// inClear says something in clear and returns what the agent says to that.
func inClear(greeting string) func(net.Conn) string {
	return func(conn net.Conn) string {
		_, _ = io.WriteString(conn, greeting) // it may be gone
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		heard := make([]byte, 1<<16)
		n, _ := conn.Read(heard) // what came came
		return string(heard[:n])
	}
}

// downgrade stands between an agent and its coordinator and offers less than TLS 1.3, at every door there is. The agent
// takes none of it, and says nothing but the beginning of a handshake.
func downgrade(t *testing.T, w *world, dir string) {
	stolen, err := identity.Open(w.data, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := stolen.ServerTLS("stolen", []string{"203.0.113.2"}) // good in all but its version
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
	var clearGRPC, clearNATS, tls12, relayed between
	clearGRPC.listen(t, "203.0.113.2:7801", inClear("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	tls12.listen(t, "203.0.113.2:7802", func(conn net.Conn) string {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if err := tls.Server(conn, old).Handshake(); err == nil {
			return "a handshake of TLS 1.2"
		}
		return ""
	})
	relayed.listen(t, "203.0.113.2:7803", func(conn net.Conn) string {
		to, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.grpc)
		if err != nil {
			return err.Error()
		}
		go func() { _, _ = io.Copy(conn, to); _ = conn.Close() }()
		_, _ = io.Copy(to, conn)
		_ = to.Close()
		return ""
	})
	clearNATS.listen(t, "203.0.113.2:7702", inClear(`INFO {"server_id":"x","version":"2.15.2","proto":1,"headers":true,"max_payload":1048576,"tls_required":false}`+"\r\n"))
	agent := start(t, "", "elsewhere-agent", "--data-dir", dir, "--coordinator", "203.0.113.2:7801,203.0.113.2:7802,203.0.113.2:7803",
		"--resolver", "203.0.113.1", "--root-server", "203.0.113.1")
	for what, b := range map[string]*between{"gRPC in clear": &clearGRPC, "TLS 1.2": &tls12, "NATS in clear": &clearNATS} {
		eventually(t, "the agent trying "+what, func(context.Context) error {
			if len(b.came()) == 0 {
				_, stderr := agent.said()
				return errors.New(stderr)
			}
			return nil
		})
		for _, begin := range b.came() {
			if begin != "" && !strings.HasPrefix(begin, "\x16\x03") {
				t.Errorf("%s: the agent takes it: %.100q", what, begin)
			}
		}
	}
	if _, stderr := agent.said(); strings.Contains(stderr, "msg=connected") || !strings.Contains(stderr, "protocol version") {
		t.Errorf("%s", stderr)
	}
}
