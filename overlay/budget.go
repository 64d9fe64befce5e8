package overlay

import "time"

// Budget allows a burst, and so many per second in the long run.
type Budget struct {
	Burst, PerSecond float64
	used             float64
	at               time.Time
}

// Take takes one at a time, if there is one left.
func (b *Budget) Take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.used = max(0, b.used-d.Seconds()*b.PerSecond)
		b.at = now
	}
	if b.used+1 > b.Burst {
		return false
	}
	b.used++
	return true
}
