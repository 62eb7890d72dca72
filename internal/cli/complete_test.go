package cli_test

import (
	"slices"
	"strings"
	"testing"
)

func TestCompletionKnowsCommandsTypesFormatsAndRegions(t *testing.T) {
	w := newWorld(t).at(fleet().serve(t))
	for name, tc := range map[string]struct {
		line string // the last word is the one to complete
		want []string
		not  []string
	}{
		"commands":                     {"t", []string{"tcp", "tls", "token"}, []string{"dns"}},
		"types after the name":         {"dns example.com A", []string{"A", "AAAA"}, nil},
		"types as they are typed":      {"dns example.com aa", []string{"aaaa"}, []string{"AAAA"}},
		"no types before the name":     {"dns ''", nil, []string{"AAAA"}},
		"an option of dig":             {"dns example.com +", []string{"+short", "+trace", "+bufsize="}, nil},
		"types of a propagation":       {"propagation example.com A", []string{"A", "AAAA"}, nil},
		"places of a propagation":      {"propagation example.com A --expect 192.0.2.1 from ''", []string{"world", "eu-west"}, nil},
		"classes":                      {"dns example.com -c ''", []string{"IN", "CH"}, []string{"A"}},
		"types after -t":               {"dns example.com -t ''", []string{"A", "HTTPS"}, nil},
		"versions of TLS":              {"tls example.com --tls-version ''", []string{"ssl3", "tls1.3"}, nil},
		"application protocols":        {"tls example.com --alpn ''", []string{"h2", "http/1.1"}, nil},
		"methods":                      {"http https://example.com/ -X ''", []string{"GET", "HEAD"}, nil},
		"statuses":                     {"http https://example.com/ --expect-status ''", []string{"200", "2xx"}, nil},
		"regions after a URL":          {"http https://example.com/ from ''", []string{"world", "eu-west"}, nil},
		"profiles":                     {"origin https://example.com/ --profile ''", []string{"cloudfront", "cloudflare", "aws-alb"}, nil},
		"profiles of a handshake":      {"tls example.com --profile ''", []string{"cloudfront"}, nil},
		"protocols, as CloudFront has": {"origin https://example.com/ --ssl-protocols ''", []string{"TLSv1.2", "SSLv3"}, nil},
		"from":                         {"tcp example.com:443 fr", []string{"from"}, nil},
		"regions after from":           {"tcp example.com:443 from ''", []string{"world", "last", "ap-south", "eu-west"}, nil},
		"regions after --from":         {"tls example.com --from ''", []string{"world", "ap-south"}, nil},
		"formats":                      {"agents --format ''", []string{"table", "json", "jsonl", "csv", "junit"}, nil},
		"what a port can be expected":  {"tcp a:1 --expect ''", []string{"open", "blocked"}, nil},
		"ids of measurements":          {"show ''", []string{"last", theID}, nil},
		"nothing after an id":          {"show last ''", nil, []string{"last", theID}},
		"shells":                       {"completion ''", []string{"bash", "zsh", "fish", "powershell"}, nil},
		"nothing for a limit":          {"dns example.com -L ''", nil, []string{"A", "from"}},
		"commands of token":            {"token ''", []string{"create", "list", "revoke"}, nil},
		"scopes":                       {"token create --scope ''", []string{"read", "measure", "admin"}, nil},
		"kinds of events":              {"audit --kind ''", []string{"token_refused", "agent_enrolled"}, nil},
		"a second from is not offered": {"tcp a:1 from JP ''", nil, []string{"from"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := w.run(t, append([]string{"__complete"}, fields(tc.line)...)...)
			var words []string
			for line := range strings.Lines(got.out) {
				word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				words = append(words, word)
			}
			for _, want := range tc.want {
				if !slices.Contains(words, want) {
					t.Errorf("no %q in %q", want, words)
				}
			}
			for _, not := range tc.not {
				if slices.Contains(words, not) {
					t.Errorf("%q in %q", not, words)
				}
			}
		})
	}
	w = newWorld(t).at(nobody(t))
	if got := w.run(t, "__complete", "tcp", "a:1", "from", ""); got.code != 0 || !strings.Contains(got.out, "world\n") {
		t.Errorf("without a coordinator: exit %d, %q", got.code, got.out)
	}
}
