//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// name is what the DNS is asked for and the certificate is for.
const name = "www.example"

// start starts the server of a race in a process of its own and returns what it says of itself, and how
// to end it.
func start(ctx context.Context, race string) (addr string, end func(), err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "serve", race)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	end = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		end()
		return "", nil, fmt.Errorf("the server did not start: %w", err)
	}
	return strings.TrimSpace(line), end, nil
}

// serve is the server's process. It ends with its standard input.
func serve(race string) error {
	for _, r := range races() {
		if r.name != race {
			continue
		}
		addr, err := r.serve()
		if err != nil {
			return err
		}
		fmt.Println(addr)
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
	return errors.New("no such server")
}

// serveDNS answers every query with one address, and parses no more of it than where the question ends.
func serveDNS() (string, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	if err := conn.SetReadBuffer(8 << 20); err != nil {
		return "", err
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if reply := answer(buf[:n]); reply != nil {
				_, _ = conn.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	return conn.LocalAddr().String(), nil
}

// answer is the reply to a query: one A record, and an OPT record.
func answer(query []byte) []byte {
	if len(query) < 12 {
		return nil
	}
	end := 12 + bytes.IndexByte(query[12:], 0) + 5
	if end < 17 || end > len(query) {
		return nil
	}
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x81, 0x80 // QR RD RA.
	copy(reply[6:], []byte{0, 1, 0, 0, 0, 1})
	reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2)
	return append(reply, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
}

// serveTCP accepts on every address of the namespace, and closes when the other end does.
func serveTCP() (string, error) {
	l, err := net.Listen("tcp4", ":0") // The namespace has nothing but a loopback interface.
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	return netip.AddrPortFrom(netip.MustParseAddr("127.1.0.0"), l.Addr().(*net.TCPAddr).AddrPort().Port()).String(), nil
}

// serveTLS serves a leaf and an intermediate, both ECDSA P-256. It says its address and its root.
func serveTLS() (string, error) {
	ca, err := probetest.NewCA("Bench", probetest.CAOptions{})
	if err != nil {
		return "", err
	}
	cert, err := ca.Issue(probetest.Leaf{Names: []string{name}})
	if err != nil {
		return "", err
	}
	host, err := probetest.ListenTLS(netip.MustParseAddrPort("127.0.0.1:0"), &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		return "", err
	}
	return host.Addr().String() + " " + base64.StdEncoding.EncodeToString(ca.Root.Raw), nil
}

// addrAndRoot reads what serveTLS says.
func addrAndRoot(said string) (netip.AddrPort, *x509.Certificate, error) {
	addr, encoded, _ := strings.Cut(said, " ")
	der, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	at, err := netip.ParseAddrPort(addr)
	return at, root, err
}
