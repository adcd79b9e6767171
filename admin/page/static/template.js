/** What the card is made of, before any data. Static: data enters as text only. */

const template = document.createElement('template');
template.innerHTML = `
<article class="card" aria-labelledby="name" aria-busy="true">
  <header class="head">
    <div class="who">
      <h2 id="name"></h2>
      <p class="id"></p>
    </div>
    <p class="pulse"><span class="dot"></span><span class="pulse-text" role="status">Loading</span><span class="as-of"></span></p>
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

    <div class="usage">
      <section class="days" aria-labelledby="days-title">
        <div class="bar-head"><h3 id="days-title">Tokens per day</h3><p class="readout" aria-hidden="true"></p></div>
        <div class="plot"></div>
        <details class="table"><summary>As a table</summary><div class="scroll" role="region" tabindex="0" aria-label="Tokens per day, as a table"></div></details>
      </section>
      <section class="shares" aria-labelledby="shares-title">
        <div class="bar-head">
          <h3 id="shares-title">Where they went</h3>
          <fieldset class="switch"><legend class="hidden">Break down by</legend>
            <label><input type="radio" name="by" value="feature" checked><span>Feature</span></label>
            <label><input type="radio" name="by" value="model"><span>Model</span></label>
            <label><input type="radio" name="by" value="user"><span>User</span></label>
          </fieldset>
        </div>
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
          <p class="hint" id="period-hint">Starts anew at 00:00 UTC</p>
          <p class="error" id="period-error"></p>
        </fieldset>
      </div>
      <div class="back-test"><span class="tag">Back-test</span><p class="back-test-text" role="status"></p></div>
      <section class="conflict" aria-labelledby="conflict-title" hidden></section>
      <div class="actions">
        <p class="outcome" role="status"></p>
        <button type="button" class="quiet use-default" hidden>Use the default budget</button>
        <button type="button" class="quiet discard" hidden>Discard</button>
        <button type="submit" class="primary save">Save</button>
      </div>
    </form>

    <section class="limits" aria-labelledby="limits-title">
      <div class="bar-head">
        <h3 id="limits-title" tabindex="-1">Limits</h3>
        <button type="button" class="quiet add">Add limit</button>
      </div>
      <p class="about"></p>
      <ul class="limit-list"></ul>
      <p class="outcome" role="status"></p>
    </section>
  </div>
</article>
`;

/** A copy of the card's skeleton. */
export const skeleton = () => /** @type {DocumentFragment} */ (template.content.cloneNode(true));
