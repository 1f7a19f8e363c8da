-- Quarto's cross references and callouts, as far as the report uses them, for pandoc alone.
-- Typst numbers what it sets; for HTML, and for the cells of a notebook, the numbers are counted
-- here. What stays unresolved is a warning, which the caller turns into an error.

local NAMES = {sec = 'Section', fig = 'Figure', tbl = 'Table', eq = 'Equation'}
local COLORS = {  -- Quarto's
  note = '#0758E5', warning = '#EB9113', important = '#CC1914', tip = '#00A047', caution = '#FC5300',
}
local typst, cells = FORMAT == 'typst', FORMAT == 'commonmark'
local elsewhere = {}  -- label -> its headings in the whole report, when a part is rendered
local numbers = {}    -- label -> its number
local counts, sections = {}, {}

local function kind(label)
  return NAMES[label:match('^(%a+)%-')] and label:match('^(%a+)%-')
end

local function number(element)
  local label = element.identifier or element.attr.identifier
  local name = kind(label)
  if not name then return nil end
  if numbers[label] then pandoc.log.warn('label ' .. label .. ' is given twice') end
  counts[name] = (counts[name] or 0) + 1
  numbers[label] = tostring(counts[name])
  return NAMES[name] .. ' ' .. numbers[label]
end

-- ::: {#tbl-x} table, last paragraph = caption :::   (the same with #fig-x)
local function float(div)
  local caption = div.content:remove()
  if caption == nil or caption.t ~= 'Para' then
    pandoc.log.warn('no caption at the end of ' .. div.identifier)
    return div
  end
  if cells then  -- table or picture is a cell's own, between the texts
    caption.content:insert(1, pandoc.Space())
    caption.content:insert(1, pandoc.Strong {pandoc.Str(number(div) .. '.')})
    div.content:insert(caption)
    return div.content
  end
  local before, body = pandoc.Blocks {}, pandoc.Blocks {}
  for _, block in ipairs(div.content) do  -- shown source stands before its result
    (block.t == 'CodeBlock' and before or body):insert(block)
  end
  caption = {pandoc.Plain(caption.content)}
  local tabular = kind(div.identifier) == 'tbl'
  if tabular and body[1] and body[1].t == 'Div' and body[1].classes:includes('gap') then
    local row = pandoc.SimpleTable({}, {pandoc.AlignCenter}, {0}, {}, {{body}})
    body = {pandoc.utils.from_simple_table(row)}
  end
  if body[1] and body[1].t == 'Table' and #body == 1 then
    body[1].caption, body[1].identifier = {long = caption}, div.identifier
  elseif tabular then
    pandoc.log.warn('not one table in ' .. div.identifier)
  else
    body = {pandoc.Figure(body, {long = caption}, {div.identifier})}
  end
  before:extend(body)
  return before
end

-- ::: {.callout-note title="..."} or with a heading as its title :::
local function callout(div, name)
  local title = div.attributes.title and pandoc.read(div.attributes.title).blocks[1].content
  if not title and div.content[1] and div.content[1].t == 'Header' then
    title = div.content:remove(1).content
  end
  title = title or {pandoc.Str(name:sub(1, 1):upper() .. name:sub(2))}
  if not typst then
    div.content:insert(1, pandoc.Para {pandoc.Strong(title)})
    if cells then return pandoc.BlockQuote(div.content) end
    return pandoc.Div(div.content, {class = 'callout', style = 'border-color: ' .. COLORS[name]})
  end
  local blocks = pandoc.Blocks {
    pandoc.RawBlock('typst', '#block[#callout(icon_color: rgb("' .. COLORS[name] .. '"), title: ['),
    pandoc.Plain(title), pandoc.RawBlock('typst', '], body: ['),
  }
  blocks:extend(div.content)
  blocks:insert(pandoc.RawBlock('typst', '])]'))
  return blocks
end

local shapes = {
  Div = function(div)
    local name = (div.classes[1] or ''):match('^callout%-(%a+)$')
    if name then return callout(div, name) end
    if kind(div.identifier) then return float(div) end
  end,
  -- $$ ... $$ {#eq-x}  becomes a span with the label
  Para = function(para)
    local out = pandoc.Inlines {}
    for _, inline in ipairs(para.content) do
      local label = inline.t == 'Str' and inline.text:match('^{#(eq%-[%w-]+)}')
      if label then
        if out[#out].t ~= 'Math' then out:remove() end  -- the space between
        local rest = inline.text:gsub('^{#[%w-]+}', '')
        out:insert(pandoc.Span({out:remove()}, {label}))
        if rest ~= '' then out:insert(pandoc.Str(rest)) end
      else
        out:insert(inline)
      end
    end
    para.content = out
    return para
  end,
}

local function captioned(element)
  local name = number(element)
  if name and not typst then
    local long = element.caption.long
    long[1].content:insert(1, pandoc.Strong {pandoc.Str(name .. '. ')})
    element.caption = {long = long}
  end
  return element
end

-- Typst's PDF/UA wants words for each picture and each formula; a formula's are its TeX.
local function plain(inline)
  return (pandoc.write(pandoc.Pandoc {pandoc.Plain {inline}}, 'typst'):gsub('%s+$', ''))
end

local function alt(text)
  return ', alt: "' .. text:gsub('^%s+', ''):gsub('%s+', ' '):gsub('[\\"]', '\\%0') .. '"'
end

local function formula(math, how)
  local block = math.mathtype == 'DisplayMath' and ', block: true' or ''
  return '#math.equation(' .. plain(math) .. block .. how .. alt(math.text) .. ')'
end

local worded = {
  Math = function(math)
    return pandoc.RawInline('typst', formula(math, ''))
  end,
  Image = function(image)
    local words = image.attributes.alt or pandoc.utils.stringify(image.caption)
    if words == '' then return nil end  -- which Typst refuses
    local set = plain(image):gsub('image%("[^"]*"', function(it) return it .. alt(words) end)
    return pandoc.RawInline('typst', set)
  end,
}

local numbering = {
  traverse = 'topdown',
  Header = function(header)
    if header.classes:includes('unnumbered') then return nil end
    sections[header.level] = (sections[header.level] or 0) + 1
    for level = header.level + 1, 6 do sections[level] = nil end
    if number(header) then
      numbers[header.identifier] = cells and '“' .. pandoc.utils.stringify(header) .. '”'
        or table.concat(sections, '.', 1, header.level)
    end
  end,
  Table = captioned,
  Figure = captioned,
  Span = function(span)
    if kind(span.identifier) ~= 'eq' then return nil end
    number(span)
    if cells then
      span.content[1].text = span.content[1].text .. '\\tag{' .. numbers[span.identifier] .. '}'
      return span.content[1]
    elseif not typst then
      span.content:insert(pandoc.Span('(' .. numbers[span.identifier] .. ')'))
      span.classes:insert('equation')
      return span
    end
    local set = formula(span.content[1], ', numbering: "(1)"')
    return pandoc.RawInline('typst', set .. ' <' .. span.identifier .. '>')
  end,
}

-- HTML's tables scroll in a box of their own; the caption stays outside, and so in sight.
local function boxed(tbl)
  local caption, id = tbl.caption, tbl.identifier
  tbl.caption, tbl.identifier = {long = {}}, ''
  local box = pandoc.Div(tbl, {class = 'scroll', tabindex = '0'})
  return #caption.long > 0 and pandoc.Figure(box, caption, {id}) or box
end

-- [-@tbl-x] is the number alone; in [Tab. @tbl-x] the words before it replace the name.
local function reference(citation)
  local label = citation.id:sub(1, 1):lower() .. citation.id:sub(2)
  local name = NAMES[kind(label)]
  if #citation.prefix > 0 then name = pandoc.utils.stringify(citation.prefix) end
  if citation.mode == 'SuppressAuthor' then name = nil end
  if not numbers[label] then
    if not elsewhere[label] then pandoc.log.warn('unresolved reference @' .. citation.id) end
    local place = elsewhere[label] ~= '' and elsewhere[label] or label
    local whose = (place == label or label:match('^sec')) and ' ' or ' in '
    return pandoc.Str((name or 'part') .. whose .. '“' .. place .. '” of the whole report')
  elseif typst then
    local supplement = name and '[' .. name .. ']' or 'none'
    return pandoc.RawInline('typst', '#ref(<' .. label .. '>, supplement: ' .. supplement .. ')')
  end
  local text = (name and name .. '\u{a0}' or '') .. numbers[label]
  return cells and pandoc.Str(text) or pandoc.Link(text, '#' .. label)
end

local references = {
  -- @tbl-x  [-@tbl-x]  [@tbl-x; @fig-y]; all other citations are left to citeproc
  Cite = function(cite)
    local out = pandoc.Inlines {}
    for i, citation in ipairs(cite.citations) do
      if not kind(citation.id:lower()) then return nil end
      if i > 1 then out:insert(pandoc.Str(', ')) end
      out:insert(reference(citation))
      out:extend(citation.suffix)
    end
    return out
  end,
}

function Pandoc(doc)
  for _, label in ipairs(doc.meta.elsewhere or {}) do
    local name, headings = pandoc.utils.stringify(label):match('^(.-)=(.*)$')
    elsewhere[name] = headings
  end
  doc = doc:walk(shapes):walk(numbering):walk(references)
  return cells and doc or doc:walk(typst and worded or {Table = boxed})
end
