// Lists every DN in pages: URL BIND-DN PASSWORD BASE FILTER SIZE. Behind the first it waits for a line.
import { once } from 'node:events';
import { Client } from 'ldapts';

const [url, dn, password, base, filter, size] = process.argv.slice(2);
const client = new Client({ url });
await client.bind(dn, password);
const found = [];
for await (const page of client.searchPaginated(base, {
  scope: 'sub', filter, attributes: ['1.1'], paged: { pageSize: Number(size) },
})) {
  if (page.searchEntries.length > Number(size)) throw new Error('a page too large');
  if (found.length === 0) {
    console.log('first page');
    await once(process.stdin, 'data');
  }
  found.push(...page.searchEntries.map((entry) => entry.dn));
}
await client.unbind();
console.log(JSON.stringify(found));
process.stdin.destroy();
