/** What the card is made of, before any data. Static: data enters as text only. */

const template = document.createElement('template');
template.innerHTML = `
<article class="card" aria-labelledby="name" aria-busy="true">
  <header class="head">
    <div class="who">
      <h2 id="name"></h2>
      <p class="id"></p>
    </div>
    <div class="times">
      <p class="pulse"><span class="dot"></span><span class="pulse-text" role="status">Loading</span><span class="as-of"></span></p>
      <p class="zone">All times and days are UTC.</p>
    </div>
  </header>

  <div class="notice trouble" role="alert" hidden></div>
  <div class="notices" role="status">
    <div class="notice soft" hidden><strong>Soft cap reached.</strong> <span></span></div>
    <div class="notice hard" hidden><strong>Hard cap reached.</strong> <span></span></div>
  </div>

  <div class="ghost"><i></i><i></i><i></i><span class="hidden">Loading the budget</span></div>

  <div class="body" hidden>
    <p class="about default-about"></p>
    <section class="spend" aria-label="Spend">
      <p class="figure"><span class="used"></span> <span class="unit"></span></p>
      <p class="ratio"><b></b><span></span></p>
      <div class="gauge"></div>
      <dl class="facts">
        <div class="fact left"><dt>Left until the hard cap</dt><dd></dd></div>
        <div class="fact reset"><dt>Resets in</dt><dd></dd><dd class="note"></dd></div>
        <div class="fact projected"><dt>Projected by the reset</dt><dd></dd><dd class="note"></dd></div>
        <div class="fact held"><dt>Held for running calls</dt><dd></dd></div>
      </dl>
    </section>

    <div class="look" role="group" aria-label="What to look at">
      <label class="hidden" for="range">Days</label>
      <select id="range" name="range"></select>
      <div class="custom" hidden>
        <label>From <input type="date" name="first" aria-describedby="range-error"></label>
        <label>to <input type="date" name="last" aria-describedby="range-error"></label>
      </div>
      <fieldset class="switch"><legend class="hidden">Break down by</legend>
        <label><input type="radio" name="by" value="feature" checked><span>Feature</span></label>
        <label><input type="radio" name="by" value="model"><span>Model</span></label>
        <label><input type="radio" name="by" value="user"><span>User</span></label>
        <label><input type="radio" name="by" value="run"><span>Run</span></label>
      </fieldset>
      <fieldset class="switch"><legend class="hidden">Step of the chart</legend>
        <label><input type="radio" name="step" value="hour"><span>Hours</span></label>
        <label><input type="radio" name="step" value="day" checked><span>Days</span></label>
        <label><input type="radio" name="step" value="week"><span>Weeks</span></label>
      </fieldset>
      <p class="range-error error" id="range-error" role="status"></p>
    </div>
    <div class="usage">
      <section class="days" aria-labelledby="days-title">
        <div class="bar-head"><h3 id="days-title">Tokens per day</h3><p class="range-days"></p></div>
        <div class="plot" tabindex="0" role="group"></div>
        <p class="readout" role="status"></p>
        <ul class="legend chart-legend" aria-label="Legend"></ul>
        <details class="table"><summary>As a table</summary><div class="scroll" role="region" tabindex="0" aria-label="Tokens over time, as a table"></div></details>
      </section>
      <section class="shares" aria-labelledby="shares-title">
        <div class="bar-head"><h3 id="shares-title">Where they went</h3><p class="range-days"></p></div>
        <div class="share-list"></div>
        <p class="foot"><button type="button" class="quiet more" hidden></button><a class="csv" download>Download CSV</a></p>
      </section>
    </div>
    <section class="empty" aria-labelledby="empty-title" hidden></section>

    <form class="budget" novalidate aria-labelledby="budget-title">
      <div class="bar-head">
        <h3 id="budget-title">Budget</h3>
        <label class="toggle"><input type="checkbox" role="switch" name="enabled"><span class="knob"></span><span>Enforce the caps</span></label>
      </div>
      <p class="by-default" hidden></p>
      <div class="fields">
        <div class="field">
          <label for="soft">Soft cap</label>
          <input id="soft" name="soft" type="text" inputmode="text" autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="No cap" aria-describedby="soft-error soft-hint" data-field="soft_cap_tokens">
          <p class="hint" id="soft-hint">Warns, refuses nothing</p>
          <p class="error" id="soft-error"></p>
        </div>
        <div class="field">
          <label for="hard">Hard cap</label>
          <input id="hard" name="hard" type="text" inputmode="text" autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="No cap" aria-describedby="hard-error hard-hint" data-field="hard_cap_tokens">
          <p class="hint" id="hard-hint">Refuses calls until the reset</p>
          <p class="error" id="hard-error"></p>
        </div>
        <fieldset class="field period" data-field="period" aria-describedby="period-error period-hint"><legend>Period</legend>
          <div class="switch">
            <label><input type="radio" name="period" value="day"><span>Day</span></label>
            <label><input type="radio" name="period" value="week"><span>Week</span></label>
            <label><input type="radio" name="period" value="month"><span>Month</span></label>
          </div>
          <p class="hint" id="period-hint">Starts anew at 00:00</p>
          <p class="error" id="period-error"></p>
        </fieldset>
      </div>
      <div class="effect" hidden><span class="tag">Now</span><p id="effect-text"></p></div>
      <div class="back-test"><span class="tag">Back-test</span><p class="back-test-text" role="status"></p></div>
      <section class="conflict" aria-labelledby="conflict-title" hidden></section>
      <section class="confirm" role="group" hidden></section>
      <div class="actions">
        <p class="outcome" role="status"></p>
        <button type="button" class="quiet use-default" hidden>Use the default budget</button>
        <button type="button" class="quiet discard" hidden>Discard</button>
        <button type="submit" class="primary save" aria-describedby="effect-text">Save</button>
      </div>
    </form>

    <section class="limits" aria-labelledby="limits-title">
      <div class="bar-head">
        <h3 id="limits-title" tabindex="-1">Limits</h3>
        <button type="button" class="quiet add">Add limit</button>
      </div>
      <p class="about"></p>
      <ul class="limit-list"></ul>
      <section class="confirm" role="group" hidden></section>
      <p class="outcome" role="status"></p>
    </section>

    <section class="alerts" aria-labelledby="alerts-title" hidden>
      <div class="bar-head"><h3 id="alerts-title">Alerts</h3></div>
      <ul></ul>
      <button type="button" class="quiet more-alerts" hidden>Show older alerts</button>
    </section>

    <section class="attention" aria-labelledby="attention-title" hidden>
      <div class="bar-head"><h3 id="attention-title">Not in these figures</h3></div>
      <div class="quarantine">
        <h4></h4>
        <ul></ul>
        <button type="button" class="quiet more-quarantined" hidden></button>
      </div>
      <div class="unsettled">
        <h4></h4>
        <p class="about">Calls that were allowed, and then failed, or were made by a service that does not report. More: <code></code></p>
        <div class="scroll" role="region" tabindex="0" aria-label="Reservations that nobody reported, by day"></div>
      </div>
    </section>

    <section class="history" aria-labelledby="history-title" hidden>
      <div class="bar-head"><h3 id="history-title" tabindex="-1">Who changed what</h3></div>
      <div class="changes"></div>
      <p class="outcome" role="status"></p>
      <button type="button" class="quiet older" hidden>Older changes</button>
    </section>
  </div>
</article>
`;

/** A copy of the card's skeleton. */
export const skeleton = () => /** @type {DocumentFragment} */ (template.content.cloneNode(true));
