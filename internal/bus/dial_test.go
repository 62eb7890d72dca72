package bus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWhatAServerSaysIsBounded(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		sentence, said string
		ok             bool
	}{
		{"what servers say", "INFO {}\r\nPING\r\nMSG jobs.a 1 5\r\nhello\r\nMSG jobs.a 1 _INBOX.x 0\r\n\r\nHMSG jobs.a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n", true},
		{"a message that looks like a line", "MSG a 1 24\r\nMSG a 1 99999999999\r\n...\r\n+OK\r\n", true},
		{"the largest message", fmt.Sprintf("MSG a 1 %d\r\n%s\r\nPING\r\n", maxMessage, strings.Repeat("y", maxMessage)), true},
		{"a message that is too large", fmt.Sprintf("MSG a 1 %d\r\n", maxMessage+1), false},
		{"one that would be the end of the process", "MSG a 1 99999999999999999\r\n", false},
		{"one that is beyond all numbers", "MSG a 1 99999999999999999999999999\r\n", false},
		{"one of less than nothing", "MSG a 1 -5\r\n", false},
		{"the same in small letters, and with headers", "hmsg a 1 9999999999 9999999999\r\n", false},
		{"headers that are longer than the whole", "HMSG a 1 20 14\r\n", false},
		{"a line that is too long", "INFO {" + long + "}\r\n", false},
		{"a line that never ends", "-ERR " + long, false},
	} {
		for _, piece := range []int{1, 7, len(c.said)} {
			conn, ok := &boundedConn{}, true
			for rest := []byte(c.said); len(rest) > 0 && ok; {
				n := min(piece, len(rest))
				ok, rest = conn.follow(rest[:n]), rest[n:]
			}
			if ok != c.ok || ok && (conn.skip != 0 || len(conn.line) != 0) {
				t.Errorf("%s, in pieces of %d: %v, %d bytes and %q are open", c.sentence, piece, ok, conn.skip, conn.line)
			}
		}
	}
}

func FuzzWhatAServerSays(f *testing.F) {
	f.Add([]byte("INFO {}\r\nMSG jobs.a 1 5\r\nhello\r\n"), uint8(3))
	f.Add([]byte("HMSG jobs.a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, said []byte, piece uint8) {
		whole := &boundedConn{}
		ok := whole.follow(said)
		parts, okParts := &boundedConn{}, true
		for rest := said; len(rest) > 0 && okParts; {
			n := min(max(1, int(piece)), len(rest))
			okParts, rest = parts.follow(rest[:n]), rest[n:]
		}
		if ok != okParts || ok && (whole.skip != parts.skip || string(whole.line) != string(parts.line)) {
			t.Errorf("in one piece %v %d %q, in pieces of %d %v %d %q", ok, whole.skip, whole.line, piece, okParts, parts.skip, parts.line)
		}
		if whole.skip > maxMessage+2 || len(whole.line) > maxLine {
			t.Errorf("%d bytes of a message, %d of a line", whole.skip, len(whole.line))
		}
	})
}

// TestWhereAnAgentConnects: a server's word is not enough, neither at first nor for where to go next.
func TestWhereAnAgentConnects(t *testing.T) {
	victim, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	struck := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := victim.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			struck <- struct{}{}
		}
	}()
	errVictim := errors.New("not there")
	may := func(addr netip.AddrPort) error {
		if addr.Addr() == netip.MustParseAddr("127.0.0.3") {
			return errVictim
		}
		return nil
	}
	opts := AgentOptions{Agent: "a", Addresses: []string{victim.Addr().String()}, May: may, Connected: func() {}}
	if _, err := ConnectAgent(t.Context(), opts); err == nil || !strings.Contains(err.Error(), errVictim.Error()) {
		t.Errorf("%v", err)
	}

	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	again := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			again <- struct{}{}
			go greet(conn, victim.Addr().String(), "")
		}
	}()
	opts.Addresses = []string{server.Addr().String()}
	c, err := ConnectAgent(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 { // The server ends each connection: it is gone back to, and to nobody else.
		select {
		case <-again:
		case <-time.After(time.Minute):
			t.Fatal("the agent does not come back")
		}
	}
	if len(struck) > 0 {
		t.Error("it connected where a server pointed it to")
	}
}

// TestWhatEndsAConnectionForGood: the library does not come back after an error that it has no name for, and says so.
func TestWhatEndsAConnectionForGood(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err == nil {
			greet(conn, "127.0.0.1:1", "-ERR 'Go \x1b[2JAway'\r\n")
		}
	}()
	c, err := ConnectAgent(t.Context(), AgentOptions{Agent: "a", Addresses: []string{server.Addr().String()}, Connected: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Ended():
	case <-time.After(time.Minute):
		t.Fatal("nobody says that it has ended")
	}
	if text := c.Err().Error(); !strings.Contains(text, "Away") || strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	c.Close() // once more is no harm
}

// greet is a server that names another one, lets the client subscribe, says a last word, and hangs up.
func greet(conn net.Conn, other, word string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"max_payload\":1048576,\"proto\":1,\"connect_urls\":[%q]}\r\n", other)
	pings := 0
	for lines := bufio.NewReader(conn); pings < 2; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if strings.HasPrefix(line, "PING") {
			pings++
			_, _ = io.WriteString(conn, "PONG\r\n")
		}
	}
	_, _ = io.WriteString(conn, word)
}
