package gossip

import "testing"

// TestAnnouncedIsThere holds that memberlist, which makes room for what a stream's head announces, sees none that
// announces more than there is.
func TestAnnouncedIsThere(t *testing.T) {
	for _, test := range []struct {
		kind byte
		text string
		want bool
	}{
		{userLetter, "\x81\xaaUserMsgLen\x06letter", true},
		{userLetter, "\x81\xaaUserMsgLen\xce\x01\x00\x00\x00letter", false},
		{userLetter, "\x81\xaauserMsgLen\x06letter", false},
		{userLetter, "\x82\xaaUserMsgLen\x06\xaaUserMsgLen\x06letter", false},
		{userLetter, "", false},
		{stateLetter, "\x83\xa5Nodes\x00\xacUserStateLen\x00\xa4Join\xc2", true},
		{stateLetter, "\x83\xa4Join\xc3\xa5Nodes\x01\xacUserStateLen\x0012345678901234567890", true},
		{stateLetter, "\x83\xa5Nodes\xce\x00\x10\x00\x00\xacUserStateLen\x00\xa4Join\xc2", false},
		{stateLetter, "\x83\xa5Nodes\x00\xacUserStateLen\xce\x01\x00\x00\x00\xa4Join\xc2", false},
		{stateLetter, "\x83\xa5Nodes\x00\xa5Nodes\x00\xa4Join\xc2", false},
		{stateLetter, "\x82\xa5Nodes\x00\xa4Join\xc2", false},
		{stateLetter, "", false},
	} {
		if got := streamIsPlain(append([]byte{test.kind}, test.text...)); got != test.want {
			t.Errorf("%d %q: %v, want %v", test.kind, test.text, got, test.want)
		}
	}
}
