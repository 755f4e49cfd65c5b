// Runs in a copy of a report, in the browser of the tests: tells the page around it what it sees, as JSON.
(() => {
  const inside = (a, b, slack) =>
    a.left >= b.left - slack && a.right <= b.right + slack && a.top >= b.top - slack && a.bottom <= b.bottom + slack;
  const overlap = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  const plots = [...document.querySelectorAll('svg[role=img]')].map(svg => {
    const frame = svg.getBoundingClientRect();
    const box = svg.getBBox();
    const texts = [...svg.querySelectorAll('text')].map(text => ({
      text: text.firstChild.textContent, rect: text.getBoundingClientRect(),
    }));
    const clashes = [];
    texts.forEach((one, at) => texts.slice(at + 1).forEach(other => {
      if (overlap(one.rect, other.rect)) clashes.push(one.text + ' | ' + other.text);
    }));
    return {
      name: svg.querySelector('title').textContent,
      described: svg.querySelector('desc').textContent.length > 0,
      width: frame.width, height: frame.height, drawn: Math.min(box.width, box.height),
      outside: texts.filter(text => !inside(text.rect, frame, 1)).map(text => text.text),
      small: Math.min(...texts.map(text => text.rect.height)),
      clashes,
    };
  });
  const light = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map(n => n / 255)
      .map(n => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = getComputedStyle(document.body).backgroundColor;
  const faint = [];
  document.querySelectorAll('h1, h2, p, td, th, dt, dd, a, caption, figcaption, li, svg text').forEach(element => {
    const style = getComputedStyle(element);
    const paint = element instanceof SVGElement ? style.fill : style.color;
    if (contrast(paint, ground) < 4.5) faint.push(element.tagName + ' ' + paint);
  });
  document.querySelectorAll('.line, .column, .dot').forEach(element => {
    const style = getComputedStyle(element);
    const paint = element.classList.contains('line') ? style.stroke : style.fill;
    if (contrast(paint, ground) < 3) faint.push(element.getAttribute('class') + ' ' + paint);
  });
  const seen = {
    width: innerWidth, content: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    dark: matchMedia('(prefers-color-scheme: dark)').matches, ground,
    requests: performance.getEntriesByType('resource').map(entry => entry.name), plots, faint: [...new Set(faint)],
    headless: [...document.querySelectorAll('table')].filter(table => !table.querySelector('thead th[scope=col]') || !table.caption).length,
    broken: [...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href'))).length,
  };
  parent.postMessage(JSON.stringify(seen), '*');
})();
