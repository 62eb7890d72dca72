package aggregate

import (
	"testing"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestCertificates(t *testing.T) {
	const day = 24 * time.Hour
	runCases(t, []verdictCase{
		{
			"one good certificate everywhere: nothing to say",
			tlsWorld().in("ap", tls(ip1, "c")).in("eu", tls(ip1, "c")),
			[]string{"ok"},
		},
		{
			"expired everywhere (rule 12: all judged regions)",
			tlsWorld().in("ap", tls(ip1, "c", expired)).in("eu", tls(ip1, "c", expired)),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_expired blame=target high"},
		},
		{
			"bad everywhere in different ways: each is said of those that have it",
			tlsWorld().in("ap", tls(ip1, "old", expired)).in("eu", tls(ip1, "fake", mismatch)),
			[]string{
				"fail",
				"ERROR certificate_problem [ap] at 203.0.113.10:443 cert_expired blame=target medium",
				"ERROR certificate_problem [eu] at 203.0.113.10:443 cert_name_mismatch blame=target medium",
			},
		},
		{
			"expired, one region asked: the certificate itself is the evidence",
			tlsWorld().in("ap", tls(ip1, "c", expired, mismatch)),
			[]string{"fail", "ERROR certificate_problem [ap] at 203.0.113.10:443 cert_expired blame=target medium"},
		},
		{
			"expired behind one address: that address, not everywhere (rule 22)",
			tlsWorld().in("ap", tls(ip1, "good"), tls(ip2, "old", expired)).in("eu", tls(ip1, "good"), tls(ip2, "old", expired)),
			[]string{"fail", "ERROR regional_certificate [ap eu] at 203.0.113.11:443 cert_expired blame=target high"},
		},
		{
			"expired for one region: that region (rule 22)",
			tlsWorld().in("ap/1", tls(ip1, "old", expired)).in("ap/2", tls(ip1, "old", expired)).in("eu", tls(ip1, "good")),
			[]string{"fail", "ERROR regional_certificate [ap] at 203.0.113.10:443 cert_expired blame=unknown high"},
		},
		{
			"expired for two regions, by one agent each: something they share, not the target",
			tlsWorld().in("ap", tls(ip1, "old", expired)).in("sa", tls(ip1, "old", expired)).in("eu", tls(ip1, "good")),
			[]string{"fail", "ERROR regional_certificate [ap sa] at 203.0.113.10:443 cert_expired blame=unknown medium"},
		},
		{
			"an address that a region cannot reach has no bad certificate there",
			tlsWorld().in("ap", tls(ip1, "old", expired), tls(ip2, "old", expired)).in("eu", tls(ip1, "good"), tls(ip2, "good")).
				in("sa", tls(ip1, "old", expired), blocked(ip2, timeout)),
			[]string{
				"fail", "ERROR regional_block [sa] at 203.0.113.11:443 tcp_timeout block=drop blame=path medium",
				"ERROR regional_certificate [ap] at 203.0.113.10:443 203.0.113.11:443 cert_expired blame=unknown medium",
				"ERROR regional_certificate [sa] at 203.0.113.10:443 cert_expired blame=unknown medium",
			},
		},
		{
			"one address is bad everywhere, one region gets another bad one: an ERROR for each",
			tlsWorld().in("ap", tls(ip1, "fake", mismatch), tls(ip2, "old", expired)).in("eu", tls(ip1, "good"), tls(ip2, "old", expired)),
			[]string{
				"fail",
				"ERROR regional_certificate [ap] at 203.0.113.10:443 cert_name_mismatch blame=unknown medium",
				"ERROR regional_certificate [ap eu] at 203.0.113.11:443 cert_expired blame=target high",
			},
		},
		{
			"one agent of the region gets a bad one: it differs (rule 7)",
			tlsWorld().in("ap/1", tls(ip1, "fake", pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)).in("ap/2", tls(ip1, "good")).in("eu", tls(ip1, "good")),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 cert_untrusted_root agents=ap-1 blame=unknown medium"},
		},
		{
			"one agent of the region gets another valid one: it differs, told by what others get",
			tlsWorld().in("ap/1", tls(ip1, "other")).in("ap/2", tls(ip1, "good")).in("eu", tls(ip1, "good")),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 agents=ap-1 blame=unknown medium"},
		},
		{
			"another valid certificate in one region (rule 22)",
			tlsWorld().in("ap", tls(ip1, "other")).in("eu", tls(ip1, "good")).in("us", tls(ip1, "good")),
			[]string{"ok", "WARN regional_certificate [ap] at 203.0.113.10:443 blame=unknown medium"},
		},
		{
			"another valid certificate on each address, none more common: all of them (rule 22)",
			tlsWorld().in("ap", tls(ip1, "x"), tls(ip2, "y")).in("eu", tls(ip1, "x"), tls(ip2, "y")),
			[]string{"ok", "WARN regional_certificate [ap eu] at 203.0.113.10:443 203.0.113.11:443 blame=unknown medium"},
		},
		{
			"a weak key is a warning (rule 19)",
			tlsWorld().in("ap", tls(ip1, "c", weakKey)).in("eu", tls(ip1, "c", weakKey)),
			[]string{"ok", "WARN certificate_problem [ap eu] at 203.0.113.10:443 cert_weak_key blame=target high"},
		},
		{
			"a weak key beside an expired leaf: one ERROR, no warning about the same",
			tlsWorld().in("ap", tls(ip1, "c", weakKey, expired)).in("eu", tls(ip1, "c", weakKey, expired)),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_expired blame=target high"},
		},
		{
			"expires in 14 days, by the coordinator's time (rule 22)",
			tlsWorld().in("ap", ending(14*day, tls(ip1, "c"))).in("eu", ending(14*day, tls(ip1, "c"))),
			[]string{"ok", "WARN certificate_problem [ap eu] at 203.0.113.10:443 blame=target high"},
		},
		{
			"expires in more than 14 days: not yet",
			tlsWorld().in("ap", ending(14*day+time.Second, tls(ip1, "c"))),
			[]string{"ok"},
		},
		{
			"the certificate is bad in one region, the way is shut in another: one ERROR for each (rule 12)",
			tlsWorld().in("ap", tls(ip1, "c", expired)).in("eu", tls(ip1, "good")).in("sa", blocked(ip1, timeout)),
			[]string{
				"fail",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
				"ERROR regional_certificate [ap] at 203.0.113.10:443 cert_expired blame=unknown medium",
			},
		},
		{
			"whoever completes the handshake is open to compare with, whatever the certificate",
			tlsWorld().in("ap", tls(ip1, "c", expired)).in("sa", blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
				"ERROR certificate_problem [ap] at 203.0.113.10:443 cert_expired blame=target medium",
			},
		},
	})
}
