package lab

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What dig and kdig print of a message. Both have the words; their punctuation differs.
var (
	digHeader    = regexp.MustCompile(`(?m)^;; ->>HEADER<<- opcode: QUERY[;,] status: (\w+)[;,] id: \d+$`)
	digFlags     = regexp.MustCompile(`(?m)^;; [Ff]lags: ([a-z ]*);`)
	digEDE       = regexp.MustCompile(`(?m)^; EDE: (\d+) \([^)]*\)(?:: ?(?:\((.*)\)|'(.*)'))?$`)
	digNSID      = regexp.MustCompile(`(?m)^; NSID: ([0-9A-Fa-f ]*[0-9A-Fa-f]) ?(?:\("|")`)
	digSubnet    = regexp.MustCompile(`(?m)^; CLIENT-SUBNET: (\S+)/(\d+)$`)
	digSize      = regexp.MustCompile(`(?m)^;; (?:MSG SIZE +rcvd: |Received )(\d+)(?: B)?$`)
	digTransport = regexp.MustCompile(`(?m)^;; (?:SERVER|From).*\((\w[\w-]*)\)(?: in .*)?$`)
)

// askDig asks with dig, strictly: a line that is not understood is an error.
func askDig(args string) func(context.Context, *peerWorld) (facts, error) {
	return digging("dig +nocookie +tries=1 +time=3 " + args)
}

// askKdig asks with kdig, for the transports that dig lacks.
func askKdig(args string) func(context.Context, *peerWorld) (facts, error) {
	return digging("kdig +nocookie +retry=0 +timeout=3 +bufsize=1232 " + args)
}

// askTwice has the resolver know the answer, as it does when Elsewhere asks.
func askTwice(args string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		if _, err := askDig(args)(ctx, w); err != nil {
			return nil, err
		}
		return askDig(args)(ctx, w)
	}
}

func digging(command string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out, err := w.home.Output(ctx, strings.Fields(strings.ReplaceAll(command, "ROOT", w.pki.file("root")))...)
		if strings.Contains(out, "no servers could be reached") || strings.Contains(out, "communications error") {
			return facts{"outcome": digTrouble(out)}, nil
		}
		if err != nil {
			return nil, err
		}
		return digFacts(out)
	}
}

// digTrouble says why dig got no answer.
func digTrouble(out string) string {
	if strings.Contains(out, "connection refused") {
		return "refused"
	}
	return "timeout"
}

// digFacts reads what dig says of the last message that it got.
func digFacts(out string) (facts, error) {
	header := digHeader.FindStringSubmatch(out)
	flags, size, transport := digFlags.FindStringSubmatch(out), digSize.FindStringSubmatch(out), digTransport.FindStringSubmatch(out)
	if header == nil || flags == nil || size == nil || transport == nil {
		return nil, fmt.Errorf("this is not what dig says: %s", out)
	}
	f := facts{
		"rcode": header[1], "flags": digFlagNames(flags[1]), "size": size[1],
		"transport": map[string]string{"UDP": "udp", "TCP": "tcp", "TLS": "tls", "HTTPS": "https", "HTTPS-GET": "https-get"}[transport[1]],
		"cut first": fmt.Sprint(strings.Contains(out, ";; Truncated, retrying in TCP mode.")),
	}
	if strings.Contains(out, ";; QUIC session ") { // kdig names what is below QUIC.
		f["transport"] = "quic"
	}
	var errs []string
	for _, e := range digEDE.FindAllStringSubmatch(out, -1) {
		errs = append(errs, fmt.Sprintf("%s %s", e[1], e[2]+e[3]))
	}
	f["extended errors"] = lines(errs)
	if nsid := digNSID.FindStringSubmatch(out); nsid != nil {
		raw, err := hex.DecodeString(strings.ReplaceAll(nsid[1], " ", ""))
		if err != nil {
			return nil, err
		}
		f["nsid"] = string(raw)
	}
	if subnet := digSubnet.FindStringSubmatch(out); subnet != nil {
		f["subnet"] = subnet[1] + " for /" + subnet[2]
	}
	for _, section := range []string{"ANSWER", "AUTHORITY", "ADDITIONAL"} {
		records, err := digSection(out, section)
		if err != nil {
			return nil, err
		}
		f[strings.ToLower(section)] = records
	}
	return f, nil
}

// digFlagNames keeps the flags that a Result has, in one order.
func digFlagNames(printed string) string {
	var kept []string
	for _, flag := range []string{"aa", "tc", "ra", "ad", "cd"} {
		if slices.Contains(strings.Fields(printed), flag) {
			kept = append(kept, flag)
		}
	}
	return strings.Join(kept, " ")
}

// digSection reads the records of a section.
func digSection(out, name string) (string, error) {
	_, rest, found := strings.Cut(out, ";; "+name+" SECTION:\n")
	if !found {
		return "", nil
	}
	section, _, _ := strings.Cut(rest, "\n\n")
	var records []string
	for line := range strings.Lines(section) {
		records = append(records, strings.TrimSpace(line))
	}
	return canonicalRecords(records)
}

// canonicalRecords writes records in one way, and in order: servers turn RRsets round.
func canonicalRecords(records []string) (string, error) {
	var out []string
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil || rr == nil {
			return "", fmt.Errorf("%q is not a record: %w", text, errors.Join(err))
		}
		// Through the wire and back: hexadecimal in capitals or not, names with escapes or without.
		wire := make([]byte, dns.MaxMsgSize)
		n, err := dns.PackRR(rr, wire, 0, nil, false)
		if err != nil {
			return "", err
		}
		if rr, _, err = dns.UnpackRR(wire[:n], 0); err != nil {
			return "", err
		}
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	slices.Sort(out)
	return lines(out), nil
}

// resolved reads what Elsewhere says of its query to one server: of the last reply that belongs to it.
func resolved(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_DNS_QUERY)
	if err != nil {
		return nil, err
	}
	return queryFacts(s)
}

func queryFacts(s *pb.Step) (facts, error) {
	replies := slices.DeleteFunc(slices.Clone(s.GetEvidence().GetReplies()), (*pb.DNSReply).GetMismatched)
	if len(replies) == 0 {
		return facts{"outcome": map[pb.Failure]string{
			pb.Failure_FAILURE_DNS_TIMEOUT: "timeout", pb.Failure_FAILURE_DNS_UNREACHABLE: "refused",
		}[s.GetFailure()]}, nil
	}
	last := replies[len(replies)-1]
	f := facts{
		"rcode": last.GetRcode(), "size": fmt.Sprint(last.GetSize()), "transport": last.GetTransport(),
		"cut first": fmt.Sprint(len(replies) > 1 && replies[0].GetTruncated()), "flags": replyFlags(last),
	}
	var errs []string
	for _, e := range last.GetExtendedErrors() {
		errs = append(errs, fmt.Sprintf("%d %s", e.GetCode(), e.GetText()))
	}
	f["extended errors"] = lines(errs)
	if len(last.GetNsid()) > 0 {
		f["nsid"] = string(last.GetNsid())
	}
	if subnet := last.GetClientSubnet(); subnet != nil {
		f["subnet"] = fmt.Sprintf("%s for /%d", subnet.GetPrefix(), subnet.GetScope())
	}
	for name, records := range map[string][]*pb.Record{
		"answer": last.GetAnswers(), "authority": last.GetAuthority(), "additional": last.GetAdditional(),
	} {
		var err error
		if f[name], err = recordFacts(records); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// replyFlags are the flags that are set, in one order.
func replyFlags(r *pb.DNSReply) string {
	var kept []string
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"aa", r.GetAuthoritative()},
		{"tc", r.GetTruncated()},
		{"ra", r.GetRecursionAvailable()},
		{"ad", r.GetAuthenticData()},
		{"cd", r.GetCheckingDisabled()},
	} {
		if flag.set {
			kept = append(kept, flag.name)
		}
	}
	return strings.Join(kept, " ")
}

// recordFacts reads the data of records back, as anyone who has the Result can.
func recordFacts(records []*pb.Record) (string, error) {
	var text []string
	for _, r := range records {
		class := "IN"
		if strings.HasSuffix(r.GetName(), ".server") || strings.HasSuffix(r.GetName(), ".bind") { // The class is the question's.
			class = "CH"
		}
		text = append(text, fmt.Sprintf("%s. %d %s %s %s", strings.TrimSuffix(r.GetName(), "."), r.GetTtl(), class, r.GetType(), r.GetData()))
	}
	return canonicalRecords(text)
}

// dropping leaves facts out on one side and the other: a resolver's times run down between two questions.
func dropping(read func(*pb.Result) (facts, error), drop func(facts)) func(*pb.Result) (facts, error) {
	return func(r *pb.Result) (facts, error) {
		f, err := read(r)
		if err == nil {
			drop(f)
		}
		return f, err
	}
}

// peerDropping is dropping for the peer's side.
func peerDropping(ask func(context.Context, *peerWorld) (facts, error), drop func(facts)) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		f, err := ask(ctx, w)
		if err == nil {
			drop(f)
		}
		return f, err
	}
}

var ttl = regexp.MustCompile(`(?m)^(\S+) \d+ `)

// timeless drops the times to live.
func timeless(f facts) {
	for _, section := range []string{"answer", "authority", "additional"} {
		if text, ok := f[section]; ok {
			f[section] = ttl.ReplaceAllString(text, "$1 ")
		}
	}
}
