package threats

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// poison steers terminals, browsers, spreadsheets and logs, if anything lets it.
const (
	poison  = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202e<script>owned()</script>\r\nlevel=ERROR msg=owned"
	formula = "=HYPERLINK(\"http://owned\")"
)

// TestT16StoredInjection: what a target says in any field comes out of every format, log and metric as text.
func TestT16StoredInjection(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	banner := serveBytes(t, "127.0.0.2:0", poison)
	page := serveBytes(t, "127.0.0.3:0", "HTTP/1.1 200 "+strings.ReplaceAll(poison, "\r\n", " ")+"\r\nServer: "+strings.ReplaceAll(poison, "\r\n", " ")+
		"\r\nX-Cache: "+formula+"\r\nLocation: javascript:owned()\r\nContent-Length: 5\r\n\r\nowned")
	leaf, err := probetest.Draft{
		Leaf: probetest.Leaf{Names: []string{"<b>owned</b>.example", formula}},
		Change: func(c *x509.Certificate) {
			c.Subject.CommonName, c.Subject.Organization = poison, []string{poison, formula}
			c.DNSNames = append(c.DNSNames, "owned\x1b[2J.example")
		},
	}.Make()
	if err != nil {
		t.Fatal(err)
	}
	secure, err := probetest.ListenTLS(netip.MustParseAddrPort("127.0.0.4:0"), &tls.Config{Certificates: []tls.Certificate{probetest.Served(leaf)}})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	txt, err := probetest.ServeDNS(netip.MustParseAddrPort("127.0.0.5:0"), probetest.Zone{
		"owned.example": {Records: []string{
			`owned.example. 60 IN TXT "` + escaped(poison) + `" "` + strings.ReplaceAll(formula, `"`, `\"`) + `"`,
			`owned.example. 60 IN CAA 0 issue "` + escaped(poison) + `"`,
			`owned.example. 60 IN NS \027[2J\013\010<b>.example.`,
		}},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer txt.Close()

	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	coordinator := w.coordinate()
	agent := w.agent("a", "--allow-target", "127.0.0.0/8", "--resolver", txt.Addr().String(), "--root-server", "127.0.0.1:9",
		"--control", banner.String(), "--city", "<b>"+formula, "--provider", formula, "--label", "evil=<script>")
	w.online(1)
	for _, question := range [][]string{
		{"tcp", banner.String()},
		{"http", "http://" + page.String() + "/"},
		{"tls", secure.Addr().String()},
		{"dns", "owned.example", "TXT"},
		{"dns", "owned.example", "CAA"},
		{"dns", "owned.example", "NS"},
		{"origin", "http://" + page.String() + "/"},
	} {
		m := w.measure(append(question, "--timeout", "8s")...)
		if !strings.Contains(m.String(), "owned") {
			t.Errorf("%v: the poison did not come through: %v", question, m)
		}
		for _, format := range [][]string{{"--format", "table"}, {"--format", "table", "-v"}, {"--format", "csv"}, {"--format", "json"}, {"--format", "jsonl"}, {"--format", "junit"}} {
			out, err := w.cli(append([]string{"show", m.GetId()}, format...)...)
			if err != nil {
				t.Errorf("%v: %v", question, err)
			}
			clean(t, fmt.Sprint(question, format), out)
			markup(t, fmt.Sprint(question, format), format[1], out)
		}
	}
	for name, p := range map[string]*process{"agent's log": agent, "coordinator's log": coordinator} {
		stdout, stderr := p.said()
		clean(t, name, stdout+stderr)
		if strings.Contains(stderr, "\nlevel=ERROR msg=owned") {
			t.Errorf("a target wrote a line of the %s", name)
		}
	}
	metrics := get(t, "http://"+freeHTTP(w.grpc)+"/metrics")
	clean(t, "metrics", metrics)
	for _, forbidden := range []string{"owned", "127.0.0.2", "example"} {
		if strings.Contains(metrics, forbidden) {
			t.Errorf("metrics have %q of a target", forbidden)
		}
	}
}

// clean fails if a text holds what steers a terminal, or turns the order of letters around.
func clean(t *testing.T, what, text string) {
	t.Helper()
	for i, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			t.Errorf("%s: %q in %q", what, r, text[max(0, i-40):min(len(text), i+40)])
			return
		}
	}
}

// markup fails if a format lets a text through that its readers take for more than that.
func markup(t *testing.T, what, format, text string) {
	t.Helper()
	switch format {
	case "junit":
		if strings.Contains(text, "<script>") || strings.Contains(text, "<b>") {
			t.Errorf("%s: markup of the target's in XML", what)
		}
	case "csv":
		for line := range strings.Lines(text) {
			for _, cell := range strings.Split(line, ",") {
				if strings.HasPrefix(strings.TrimLeft(cell, `"`), "=") {
					t.Errorf("%s: a formula: %s", what, cell)
				}
			}
		}
	}
}

// serveBytes says the same to everybody who connects.
func serveBytes(t *testing.T, addr, text string) netip.AddrPort {
	t.Helper()
	return serve(t, addr, func(conn net.Conn) {
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, conn)
	})
}

// serve has handle deal with everybody who connects.
func serve(t *testing.T, addr string, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	host, err := probetest.ListenFunc(netip.MustParseAddrPort(addr), handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr()
}

// escaped is a text as zone files have it.
func escaped(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' || b == '"' || b == '\\' {
			fmt.Fprintf(&out, `\%03d`, b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// get fetches a page of the coordinator's.
func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url) //nolint:noctx // it is there
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response.Status, err)
	}
	return string(body)
}
