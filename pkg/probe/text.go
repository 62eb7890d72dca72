package probe

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxText bounds the words of an Evidence, in bytes.
const maxText = 500

// Short returns the form of a failure that people are shown, such as "tcp_timeout".
func Short(f pb.Failure) string {
	return strings.ToLower(strings.TrimPrefix(f.String(), "FAILURE_"))
}

// clean makes a string from the network fit to be stored and shown: valid UTF-8 without control or
// direction-changing characters, at most limit bytes.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == utf8.RuneError:
			return -1
		}
		return r
	}, s[:min(len(s), 4*limit)])
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// canonical returns a domain name in lower case without its trailing dot, as A-labels; the root is ".".
func canonical(name string) string {
	if name == "." {
		return name
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, r := range name {
		if r >= utf8.RuneSelf {
			if a, err := idna.Lookup.ToASCII(name); err == nil {
				return a
			}
			break
		}
	}
	return name
}

// texts returns addresses as text.
func texts(ips []netip.Addr) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// alertName returns an alert's name as RFC 8446 spells it, such as "handshake_failure".
func alertName(alert uint8) string {
	name := strings.TrimPrefix(tls.AlertError(alert).Error(), "tls: ")
	return strings.ReplaceAll(name, " ", "_")
}
